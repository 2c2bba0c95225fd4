"""Which release is served after which swap, and how it is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.swap_answers import KnownRelease, known_release

WAYS = ("config renamed", "config written in place", "hlm release use", "hlm release rollback")
ROLLBACK = WAYS[-1]
OTHER_ENCODER_EVERY = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One swap."""

    way: str
    release: KnownRelease


def first_release(encoder: Path, index: Path) -> KnownRelease:
    """What the server is started with."""
    return known_release("swap-000", encoder, index)


def plan_swaps(first: KnownRelease, encoders: Sequence[Path], indexes: Sequence[Path], swaps: int) -> list[Step]:
    """The ways in turn; each asks for a new name with the other index, and every fifth for the other encoder.

    A rollback goes back to the release before the one that the step before it asked for.
    """
    steps: list[Step] = []
    served = [first]
    for number in range(1, swaps + 1):
        way = WAYS[(number - 1) % len(WAYS)]
        if way == ROLLBACK:
            release = served[-2]
        else:
            encoder = encoders[number % OTHER_ENCODER_EVERY == 0]
            index = indexes[served[-1].index == indexes[0]]
            release = known_release(f"swap-{number:03d}", encoder, index)
        served.append(release)
        steps.append(Step(way, release))
    return steps


def together(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that belong in one stretch of time: a rollback follows its step at once, while the release is loaded."""
    group = 0
    numbered = []
    for step in steps:
        group += step.way != ROLLBACK
        numbered.append((group, step))
    for _, members in groupby(numbered, key=lambda pair: pair[0]):
        yield [step for _, step in members]
