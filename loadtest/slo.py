"""Objectives that a phase has to meet, as in `p99=25ms,errors=0.1%`."""

import re
from dataclasses import dataclass

from loadtest.errors import LoadTestError
from loadtest.result import RANKS, Phase, Verdict

_PART = re.compile(r"(?P<name>[\w.]+)=(?P<value>\d+(\.\d+)?)(?P<unit>ms|s|%)")
_UNIT = {"ms": 1.0, "s": 1_000.0, "%": 0.01}


@dataclass(frozen=True, slots=True)
class Objective:
    """A bound that a figure must not exceed."""

    name: str
    bound: float
    """In ms, or a share."""
    text: str

    def found(self, phase: Phase) -> float | None:
        """The figure; None where nothing was asked, or nothing answered well that could have a latency."""
        if self.name == "errors":
            return phase.error_share if phase.requests else None
        return phase.latency_ms[self.name]

    def judge(self, phase: Phase) -> Verdict:
        """Whether the phase meets it; one without a figure does not."""
        found = self.found(phase)
        shown = "no answer" if found is None else f"{found:.2%}" if self.name == "errors" else f"{found:,.2f} ms"
        met = found is not None and found <= self.bound
        return Verdict(phase=phase.name, objective=self.text, found=shown, met=met)


def parse_slo(text: str | None) -> list[Objective]:
    """The objectives, in their order; none of None.

    Raises:
        LoadTestError: one is none.
    """
    return [_objective(part.strip()) for part in text.split(",")] if text else []


def _objective(part: str) -> Objective:
    match = _PART.fullmatch(part)
    names = [*RANKS, "errors"]
    if not match or match["name"] not in names or (match["unit"] == "%") != (match["name"] == "errors"):
        raise LoadTestError(f"{part!r}: expected objectives as in p99=25ms,errors=0.1%, of {', '.join(names)}")
    return Objective(match["name"], float(match["value"]) * _UNIT[match["unit"]], part)
