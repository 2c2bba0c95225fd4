"""What each stage of a request costs: microseconds of processor time a request, through the code that serves it.

What it measures: parse, admit, tokenize, batch, encode, search and respond, each by itself on prepared inputs
(`benchmarks/stages.py`); `bare`, which is tokenize, encode and search in a plain loop; and `retrieve`, which is
everything between a request's body and its answer's, with one worker and no cache.
How: processor time of all threads, which neighbours change less than time on the clock. Stages take turns in rounds.
It asks for huge pages, as the service does.
How to read the last lines: one a stage, medians over rounds with the least and the most of them.
- What `retrieve` costs above `bare` is the price of serving, HTTP excepted.
- A stage by itself finds its code and data in the processor's caches, so `bare` is more than its three stages.
- `--history` keeps the lines. Only runs on the same processor with the same artifacts can be compared.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import process_time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the service; numpy reads it when it is imported

import uvloop
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.history import Cost, lines, origin
from benchmarks.queries import read_queries
from benchmarks.servers import add_arguments
from benchmarks.stages import BATCH, Stage, Stages
from benchmarks.tables import wide_console
from index.load import load_index
from memory import ask_for_huge_pages
from service.encoder import Encoder
from service.release import Release
from service.verify import warm_up
from terminal import progress

PREPARED = 400
"""Requests, a multiple of the batch; enough that their ads do not stay in the processor's cache."""
CHUNK = 8
"""Batches between two looks at the clock."""


@dataclass(slots=True)
class Measured:
    """A stage and what it cost, round by round."""

    name: str
    batch_size: int
    stage: Stage
    us: list[float] = field(default_factory=list)
    """Of a request."""

    async def measure(self, seconds: float) -> None:
        """Run it for some processor time."""
        parts = _parts(self.batch_size)
        requests, started = 0, process_time()
        while (spent := process_time() - started) < seconds:
            for part in islice(parts, CHUNK):
                await self.stage(part)
            requests += CHUNK * self.batch_size
        self.us.append(spent / requests * 1e6)

    def cost(self) -> Cost:
        """Over all rounds."""
        middle, least, most = (round(value, 2) for value in (median(self.us), min(self.us), max(self.us)))
        return Cost(self.name, self.batch_size, middle, least, most)


def main() -> None:
    """Measure, print the card, and one line of JSON a stage."""
    args = _arguments()
    ask_for_huge_pages()
    release = _load(args.encoder, args.index)
    queries = list(islice(cycle(read_queries(args.queries)), PREPARED))
    costs = uvloop.run(_measure(Stages(release, queries, args.top_k), args.rounds, args.seconds))
    _print_table(costs)
    found = "".join(f"{line}\n" for line in lines(origin(release, args.top_k), costs))
    print(found, end="")
    if args.history is not None:
        with args.history.open("a") as history:
            history.write(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--history", type=Path, help="file that the lines are appended to")
    return parser.parse_args()


def _load(encoder_path: Path, index_path: Path) -> Release:
    encoder, manifest = Encoder.load(encoder_path)
    ad_index = load_index(index_path)
    release = Release("bench", encoder, ad_index, manifest.model_version, ad_index.manifest.index_version)
    warm_up(release, BATCH)
    return release


async def _measure(stages: Stages, rounds: int, seconds: float) -> list[Cost]:
    measured = [Measured(*stage) for stage in stages.all()]
    async with stages.started():
        with progress("Measuring", rounds, "rounds") as advance:
            for _ in range(rounds):
                for one in measured:
                    await one.measure(seconds)
                advance(1)
    return [one.cost() for one in measured]


def _parts(size: int) -> Iterator[slice]:
    """All prepared requests, batch by batch, again and again."""
    return cycle([slice(first, first + size) for first in range(0, PREPARED, size)])


def _print_table(costs: list[Cost]) -> None:
    table = Table("stage", title="Processor time of a request, µs")
    for heading in ("batch size", "median", "least", "most"):
        table.add_column(heading, justify="right")
    for cost in costs:
        table.add_row(
            cost.stage, str(cost.batch_size), *(f"{us:,.1f}" for us in (cost.us, cost.least_us, cost.most_us))
        )
    wide_console().print(table)


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
