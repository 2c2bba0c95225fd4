"""Filtered search at several pass rates: recall against exact search with the same filter, and cost beside none.

Who passes is random (ads have bids, and a request a least one), or follows the topic: an ad's category is `topic > n`,
and a request gets ads of some topics, drawn anew for each.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.tables import wide_console
from index.columns import EligibilityColumns
from index.filters import Filters, Wanted
from index.load import FrozenIndex
from index.recall import ann_recall

SHARES = (0.9, 0.5, 0.1, 0.02, 0.005)
TOPICS = 512
TOP_K = 100
SEED = 1
WARM_UP = 50
_CHUNK_ROWS = 8192

Kind = tuple[str, float]
"""Who passes, and which share of the ads does."""
UNFILTERED: Kind = ("none", 1.0)
Asking = Callable[[int], Wanted]
"""What the n-th request asks for."""


class PassRate(NamedTuple):
    """What filtered searches find and cost."""

    who: str
    """`none` without a filter, `random` or `topic`."""
    share: float
    """Of the ads that pass."""
    ann_recall: float
    p50_ms: float
    p99_ms: float
    p99_ratio: float
    """To that without a filter."""


def topics(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each ad the nearest of some ads drawn at random; vectors (n, dim) may be mapped from disk."""
    drawn = np.random.default_rng(SEED).choice(len(vectors), min(TOPICS, len(vectors)), replace=False)
    centres = vectors[drawn]
    starts = range(0, len(vectors), _CHUNK_ROWS)
    return np.concatenate([(vectors[start : start + _CHUNK_ROWS] @ centres.T).argmax(axis=1) for start in starts])


def category(topic: int) -> str:
    """Of the ads of a topic."""
    return f"topic > {topic}"


def measure(ad_index: FrozenIndex, queries: NDArray[np.float32], searches: int, *, at: float = 0.0) -> list[PassRate]:
    """Search without a filter and at each pass rate.

    All kinds of searches take turns, one at a time on this thread, so that what else the machine does hits all alike;
    seconds are those of the thread.

    Args:
        ad_index: of ads with bids and categories.
        queries: embeddings, shape (n, dim), taken in turn.
        searches: of each kind.
        at: when they are asked, in seconds since 1970.
    """
    kinds: dict[Kind, Asking] = {UNFILTERED: lambda _: Wanted(TOP_K, at=at)}
    for who, asking in (("random", _bidding), ("topic", _by_topic)):
        kinds |= {(who, share): asking(ad_index.eligibility, share, at) for share in SHARES}
    wanted = {kind: [ask(number) for number in range(searches)] for kind, ask in kinds.items()}
    asked = queries[np.arange(searches) % len(queries)]
    found, seconds = _take_turns(ad_index, asked, wanted)
    base = float(np.percentile(seconds[UNFILTERED], 99))
    measured = []
    for kind in kinds:
        exact = [hits.rows for hits in ad_index.exact_search(asked, wanted[kind])]
        p50_s, p99_s = np.percentile(seconds[kind], (50, 99)).tolist()
        measured.append(PassRate(*kind, ann_recall(found[kind], exact), p50_s * 1e3, p99_s * 1e3, p99_s / base))
    return measured


def show(measured: list[PassRate], title: str | None = None) -> None:
    """Print them as a table."""
    table = Table("who passes", "of the ads", f"ann_recall@{TOP_K}", "p50 ms", "p99 ms", "of unfiltered", title=title)
    for one in measured:
        row = (one.who, f"{one.share:.1%}", f"{one.ann_recall:.4f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}")
        table.add_row(*row, f"{one.p99_ratio:.2f}")
    wide_console().print(table)


def worst(measured: list[PassRate]) -> dict[str, float]:
    """The least recall, and the largest multiple of what a search costs without a filter."""
    return {
        "filtered_recall_min": round(min(one.ann_recall for one in measured), 4),
        "filtered_p99_ratio_max": round(max(one.p99_ratio for one in measured), 3),
    }


def _take_turns(
    ad_index: FrozenIndex, asked: NDArray[np.float32], wanted: dict[Kind, list[Wanted]]
) -> tuple[dict[Kind, list[NDArray[np.int64]]], dict[Kind, list[float]]]:
    """Rows that each search found, and its seconds, by kind; the first searches are made twice, once to warm up."""
    found: dict[Kind, list[NDArray[np.int64]]] = {kind: [] for kind in wanted}
    seconds: dict[Kind, list[float]] = {kind: [] for kind in wanted}
    for number in [*range(WARM_UP), *range(len(asked))]:
        position = number % len(asked)
        for kind, theirs in wanted.items():
            started = time.thread_time()
            [hits] = ad_index.search(asked[position][np.newaxis], [theirs[position]])
            seconds[kind].append(time.thread_time() - started)
            found[kind].append(hits.rows)
    return {kind: rows[WARM_UP:] for kind, rows in found.items()}, {kind: s[WARM_UP:] for kind, s in seconds.items()}


def _bidding(columns: EligibilityColumns, share: float, at: float) -> Asking:
    bids = np.nan_to_num(columns.rows["bid"], nan=0.0)
    wanted = Wanted(TOP_K, Filters(min_bid=float(np.quantile(bids, 1 - share))), at=at)
    return lambda _: wanted


def _by_topic(columns: EligibilityColumns, share: float, at: float) -> Asking:
    names = columns.category_names.names
    sizes = np.bincount(columns.rows["category"], minlength=len(names) + 1)[1:]

    def ask(number: int) -> Wanted:
        order = np.random.default_rng(number).permutation(len(names))
        kept = max(1, int(np.searchsorted(np.cumsum(sizes[order]), share * sizes.sum())))
        return Wanted(TOP_K, Filters(exclude_categories=frozenset(names[topic] for topic in order[kept:])), at=at)

    return ask
