"""Opens one index in a process of its own and prints, as a line of JSON, what it costs and how fast it is searched."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.pass_rates import measure
from index.filters import Wanted
from index.load import FrozenIndex, load_index
from index.queries import sample_queries
from memory import ask_for_huge_pages

ROUNDS = 3


def main() -> None:
    """Measure."""
    ask_for_huge_pages()  # as the service does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--filtered", type=int, default=300, help="searches at each pass rate")
    args = parser.parse_args()
    before = _anonymous_bytes()
    started = time.perf_counter()
    ad_index = load_index(args.index)
    load_s = time.perf_counter() - started
    held = _anonymous_bytes() - before
    queries = sample_queries(None, ad_index.ads, ad_index.vectors, None).embeddings
    seconds = _search_seconds(ad_index, queries, args.k)
    figures = {
        "load_s": load_s,
        "memory_bytes": held,
        "p50_us": float(np.percentile(seconds, 50)) * 1e6,
        "p99_us": float(np.percentile(seconds, 99)) * 1e6,
        "pass_rates": [rate._asdict() for rate in measure(ad_index, queries, args.filtered)],
    }
    print(json.dumps(figures))


def _search_seconds(ad_index: FrozenIndex, embeddings: NDArray[np.float32], k: int) -> list[float]:
    """Processor time of each query of the round whose sum is the least, one at a time on one thread."""
    wanted = [Wanted(k)]
    ad_index.search(embeddings[:1], wanted)
    rounds = []
    for _ in range(ROUNDS):
        seconds = []
        for row in range(len(embeddings)):
            started = time.thread_time()
            ad_index.search(embeddings[row : row + 1], wanted)
            seconds.append(time.thread_time() - started)
        rounds.append(seconds)
    return min(rounds, key=sum)


def _anonymous_bytes() -> int:
    """Resident memory of this process that is no file's: what is mapped from disk is the page cache's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kibibytes) * 1024


if __name__ == "__main__":
    main()
