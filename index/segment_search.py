"""Searches one segment for what queries may get.

    how much of a sample of the segment passes
    ├─ so much that an unfiltered search finds enough   walk: search the graph, mask what it found
    ├─ so few that all of them can be compared          scan; also where there is no graph
    └─ else by the share that passes of the ads about the query
        ├─ enough                                       walk, as broadly as the share asks for
        └─ few, or the walk found too few               scan from the nearest cluster on, up to a number of ads

No filter is called from inside a graph search: a Python callback there makes two threads slower than one.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.coarse import Coarse
from index.filters import Rule
from index.ranking import Ranked, best_of
from index.segment import Linked, Segment

CHUNK_ROWS = 256
"""Vectors gathered at once: 384 KB of dim 384, which stay in a core's cache until they are compared."""
MOST_COMPARED = 2_500
"""Ads that are compared by their vectors; where more pass, codes say which."""
MULTIPLIED_AT_ONCE = 1024
"""Products of embeddings and vectors of dim 384 that OpenBLAS forms without copying the vectors first, which takes
longer than to multiply where the embeddings are few."""
FEW_EMBEDDINGS = 16
RESCORED = 500
"""Ads that codes leave to be compared by their vectors, and for a larger top_k so many times as many."""
RESCORED_PER_HIT = 5
MOST_SCANNED = 20_000
"""Ads whose codes are looked at where more pass; takes about twice as long as an unfiltered search at top_k 100."""
MOST_BROADENED = 1.6
"""How much broader a walk may be than an unfiltered one, before a scan costs less."""
LEAST_SLACK = 1.6
"""How much broader than the share of passing ads asks for: the last that a graph search finds are its worst."""
SLACK_PER_EF = 0.75
"""And by this times the breadth a hit that the graph needs without a filter: 1.8 on 100,000 ads, 3.6 on 300,000."""
NEARBY = 1_000
"""Ads about a query by which the share of those that pass is estimated."""

Embeddings = NDArray[np.float32]


def find(
    segment: Segment, embeddings: Embeddings, rules: Sequence[Rule], floors: Embeddings, need: int, effort: float
) -> list[Ranked]:
    """Of each query the best `need` ads of a segment that pass, all where fewer do.

    Args:
        segment: where to look.
        embeddings: of the queries, shape (n, dim).
        rules: of the queries; their `targets` are the same.
        floors: scores that other segments reach `need` times already, shape (n,): ads below may be left out.
        need: at least 1.
        effort: share of the usual breadth to spend.
    """
    linked = segment.linked
    if linked is None:
        return _scan_above(segment, embeddings, rules, floors, need)
    ef_search = round(linked.ef_search * effort)
    share = linked.sample.share(rules[0])
    if share == 1 or share * ef_search >= _slack(linked) * need:
        return _walk_together(segment, linked, embeddings, rules, need, effort)
    few = share * len(segment.rows) <= MOST_COMPARED
    return [
        _scan_near(segment, linked, embedding, rule, need, effort)
        if few
        else _near(segment, linked, embedding, rule, need, effort)
        for embedding, rule in zip(embeddings, rules, strict=True)
    ]


def _walk_together(
    segment: Segment, linked: Linked, embeddings: Embeddings, rules: Sequence[Rule], need: int, effort: float
) -> list[Ranked]:
    """Search the graph once for all queries."""
    found = linked.graph.search(embeddings, max(round(linked.ef_search * effort), need))
    if found is None:
        return scan(segment, embeddings, rules, need)
    answers = []
    for embedding, rule, positions, scores in zip(embeddings, rules, *found, strict=True):
        ranked = _passing(segment, rule, positions, scores, need)
        enough = len(ranked.rows) == need or ranked.complete
        answers.append(ranked if enough else _near(segment, linked, embedding, rule, need, effort))
    return answers


def _near(segment: Segment, linked: Linked, embedding: Embeddings, rule: Rule, need: int, effort: float) -> Ranked:
    """Walk, if enough of the ads about the query, embedding (dim,), pass; else scan, or where that found too few."""
    nearby = linked.coarse.members[linked.coarse.from_nearest(embedding).take(NEARBY)]
    passing = int(np.count_nonzero(rule.passes(segment.rows_at(nearby))))
    usual = max(round(linked.ef_search * effort), need)
    breadth = math.ceil(_slack(linked) * need * len(nearby) / max(1, passing))
    if breadth <= MOST_BROADENED * usual:
        found = linked.graph.search(embedding[np.newaxis], max(breadth, usual))
        if found is not None:
            ranked = _passing(segment, rule, found[0][0], found[1][0], need)
            if len(ranked.rows) == need or ranked.complete:
                return ranked
    return _scan_near(segment, linked, embedding, rule, need, effort)


def _slack(linked: Linked) -> float:
    return max(LEAST_SLACK, SLACK_PER_EF * linked.ef_per_hit)


def _scan_near(segment: Segment, linked: Linked, embedding: Embeddings, rule: Rule, need: int, effort: float) -> Ranked:
    """Compare with ads that pass from the nearest cluster on, until so many were looked at or there are no more."""
    coarse = linked.coarse
    passes = rule.passes(segment.span)
    total = int(np.count_nonzero(passes))
    budget = max(round(MOST_SCANNED * effort), RESCORED_PER_HIT * need)
    slots = _passing_slots(coarse, embedding, passes, min(total, budget), total)
    complete = len(slots) == total
    rescored = max(RESCORED, RESCORED_PER_HIT * need)
    if len(slots) > max(MOST_COMPARED, rescored):
        slots, complete = coarse.best(embedding, slots, rescored), False
    positions = np.sort(coarse.members[slots])  # as they lie in memory, which is a third faster
    scores = _scores(segment, embedding[np.newaxis], positions)[0]
    return best_of(segment.rows[positions], scores, need, all_scored=complete)


def _passing_slots(
    coarse: Coarse, embedding: Embeddings, passes: NDArray[np.bool_], count: int, total: int
) -> NDArray[np.int64]:
    """Slots that pass, at least so many of the `total` there are, from the nearest cluster on."""
    if count == total:
        return np.flatnonzero(passes.take(coarse.members))
    runs = coarse.from_nearest(embedding)
    parts: list[NDArray[np.int64]] = []
    found = 0
    while found < count:
        run = runs.take(math.ceil((count - found) * len(passes) / total))
        parts.append(run[np.flatnonzero(passes.take(coarse.members[run]))])  # by position: half the time of by mask
        found += len(parts[-1])
    return np.concatenate(parts)


def _passing(
    segment: Segment, rule: Rule, positions: NDArray[np.int64], scores: NDArray[np.float32], need: int
) -> Ranked:
    """What passes of the result of a graph search."""
    rows = segment.rows_at(positions)
    kept = np.flatnonzero(rule.passes(rows))
    complete = len(positions) == len(segment.rows) and len(kept) <= need
    return Ranked(rows[kept[:need]], scores[kept[:need]], complete)


def _scan_above(
    segment: Segment, embeddings: Embeddings, rules: Sequence[Rule], floors: Embeddings, need: int
) -> list[Ranked]:
    """Compare each query with every ad of a segment without a graph, and look closer at those above its floor.

    Beside a graph with most of the ads these are few, which makes ads that came later cheap.
    """
    scores = products(embeddings, segment.vectors)
    answers = []
    for of_query, rule, floor in zip(scores, rules, floors, strict=True):
        above = np.flatnonzero(of_query >= floor)
        rows = segment.rows[above]
        passing = rule.passes(rows)
        every = len(above) == len(of_query)
        answers.append(best_of(rows[passing], of_query[above[passing]], need, all_scored=every))
    return answers


def scan(segment: Segment, embeddings: Embeddings, rules: Sequence[Rule], need: int) -> list[Ranked]:
    """Compare each query with every ad of a segment that it may get; the rules' `targets` are the same."""
    span = segment.span
    targets = rules[0].targets(span)
    passes = [rule.admits(span) & targets for rule in rules]
    positions = np.flatnonzero(np.logical_or.reduce(passes))
    rows = segment.rows[positions]
    scores = _scores(segment, embeddings, positions)
    return [
        best_of(rows[own], of_query[own], need)
        for own, of_query in zip((one[positions] for one in passes), scores, strict=True)
    ]


def _scores(segment: Segment, embeddings: Embeddings, positions: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cosines of embeddings (n, dim) and the ads at some positions, shape (n, positions)."""
    if segment.linked is None and len(positions) == len(segment.rows):
        return products(embeddings, segment.vectors)
    scores = np.empty((len(embeddings), len(positions)), dtype=np.float32)
    gathered = np.empty((min(CHUNK_ROWS, len(positions)), embeddings.shape[1]), dtype=np.float32)
    for start in range(0, len(positions), CHUNK_ROWS):
        chunk = positions[start : start + CHUNK_ROWS]
        vectors = segment.take(chunk, out=gathered[: len(chunk)])
        np.matmul(embeddings, vectors.T, out=scores[:, start : start + len(chunk)])
    return scores


def products(embeddings: Embeddings, vectors: Embeddings) -> NDArray[np.float32]:
    """Of embeddings (n, dim) and vectors (m, dim), shape (n, m)."""
    scores = np.empty((len(embeddings), len(vectors)), dtype=np.float32)
    chunk = MULTIPLIED_AT_ONCE // len(embeddings) if len(embeddings) <= FEW_EMBEDDINGS else len(vectors)
    for start in range(0, len(vectors), chunk):
        np.matmul(embeddings, vectors[start : start + chunk].T, out=scores[:, start : start + chunk])
    return scores
