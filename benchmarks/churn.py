"""What is left of recall when ads are replaced again and again, and the graphs continued each time.

What it measures: ann_recall of graphs that have gone through many merges, against that of graphs built at once
of the ads that are left, both searched as broadly.
How: ads with the vectors of a real index. In each of three rounds half of them are written anew with vectors of others,
as many at a time as are merged together in service. The queries are those that the index was tuned on.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from artifacts.errors import HlmError
from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest
from benchmarks.tables import wide_console
from index.changes import AdState
from index.compaction import write_base
from index.exact import exact_top_k
from index.feed import FeedAd
from index.generation import Generation, empty_base
from index.layout import QUERIES, VECTORS
from index.live import MERGE_LATER_ADS
from index.load import load_index
from index.queries import QuerySample
from index.recall import measure

ROUNDS = 3
K = 100
MOST_QUERIES = 500


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, help="index artifact with a graph")
    parser.add_argument("--ads", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="churn-") as directory:
        fresh, churned, merges = _measure(args.index, args.ads, Path(directory))
    table = Table(
        "", f"ann_recall@{K}", title=f"{args.ads:,} ads, half of them replaced {ROUNDS} times, {merges} merges"
    )
    table.add_row("built at once", f"{fresh:.4f}")
    table.add_row("after the merges", f"{churned:.4f}")
    wide_console().print(table)
    print(json.dumps({"churn_recall_drop": round(fresh - churned, 5)}))


def _measure(source: Path, ad_count: int, directory: Path) -> tuple[float, float, int]:
    """Recall of fresh graphs and of those that went through merges, and how many those were."""
    manifest = load_manifest(source, IndexManifest)
    vectors = np.load(source / VECTORS, mmap_mode="r")
    queries = QuerySample(np.load(source / QUERIES)[:MOST_QUERIES], manifest.recall.query_source)
    chance = np.random.default_rng(0)
    rows = chance.choice(len(vectors), ad_count, replace=False)
    """Of the vector that each ad has now."""
    sequence, merges = 0, 0

    def built(number: int, ads: Iterable[int]) -> Path:
        generation = Generation(empty_base(manifest))
        generation.fill([_state(sequence, ad, vectors[rows[ad]]) for ad in ads], sequence)
        write_base(generation, directory / str(number), queries, threads=2)
        return directory / str(number)

    base = built(0, range(ad_count))
    for _ in range(ROUNDS):
        replaced = chance.choice(ad_count, ad_count // 2, replace=False)
        rows[replaced] = chance.choice(len(vectors), len(replaced), replace=False)
        for some in np.array_split(replaced, -(-len(replaced) // MERGE_LATER_ADS)):
            generation = Generation(load_index(base))
            generation.apply([_state(sequence + n, ad, vectors[rows[ad]]) for n, ad in enumerate(some.tolist(), 1)])
            sequence, merges = generation.sequence, merges + 1
            base = directory / str(merges)
            write_base(generation, base, queries, threads=2)
    fresh = built(merges + 1, range(ad_count))
    breadth = load_index(fresh).manifest.segments[0].ef_search or K
    return _recall(fresh, queries.embeddings, breadth), _recall(base, queries.embeddings, breadth), merges


def _state(sequence: int, ad: int, vector: NDArray[np.float32]) -> AdState:
    return AdState(sequence, str(ad), FeedAd(ad_id=str(ad), title=str(ad)), np.array(vector))


def _recall(directory: Path, queries: NDArray[np.float32], breadth: int) -> float:
    [segment] = (loaded := load_index(directory)).routing.segments
    assert segment.linked is not None
    exact, _ = exact_top_k(queries, loaded.vectors, K)
    return measure(segment.linked.graph, queries, exact, breadth).ann_recall


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
