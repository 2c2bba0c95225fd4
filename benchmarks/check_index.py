"""All checks of the ad index, one after another; the last line has the figures of all of them as one JSON object."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.servers import add_arguments

QUICK = {
    "benchmarks.filtered": ("--searches", "100", "--returned", "100000"),
    "benchmarks.live": ("--rounds", "1", "--merges", "1", "--seconds", "2", "--least-made", "0"),
    "benchmarks.churn": ("--ads", "2500"),
    "benchmarks.kills": ("--kills", "50"),
}
"""The checks, and what makes each a tenth of itself; also of a machine that cannot keep up the rate of changes."""


def main() -> None:
    """Run them, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--feed", nargs="+", required=True, help="ads for filtered searches")
    parser.add_argument("--work", default="var/filtered", help="where their indexes are kept for next time")
    parser.add_argument("--quick", action="store_true", help="a tenth of each")
    args = parser.parse_args()
    pair = ["--encoder", str(args.encoder), "--index", str(args.index)]
    queries = ["--queries", str(args.queries)] if args.queries else []
    options = {
        "benchmarks.filtered": [*pair[:2], *queries, "--work", args.work, "--feed", *args.feed],
        "benchmarks.live": [*pair, *queries],
        "benchmarks.churn": pair[2:],
        "benchmarks.kills": [],
    }
    figures: dict[str, Any] = {}
    for check, quick in QUICK.items():
        *card, last = _lines([check, *options[check], *(quick if args.quick else ())])
        print("\n".join(card), flush=True)
        figures |= json.loads(last)
    print(json.dumps(figures))


def _lines(command: list[str]) -> Iterator[str]:
    done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} ended with exit code {done.returncode}; its error is above")
    yield from done.stdout.splitlines()


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
