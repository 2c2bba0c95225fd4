"""Searches segments for what each query may get: the graph with a mask over what it finds, or a scan of what passes.

    share of the segment that passes, estimated on a sample
    ├─ few ads pass, or there is no graph   scan: mask all rows, compare with those that pass
    └─ else                                 walk: search the graph as broadly as the share asks for, mask what it found;
                                            where too few are left, again and broader, or a scan once that costs less

What the mask cannot say row by row (pass-through, the cap per advertiser) is taken away from the merged list of all
segments, best first, and made up for by searching on. No filter is called from inside a graph search: a Python callback
there makes two threads slower than one.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.columns import EligibilityColumns
from index.filters import Filters, Rule, Wanted, rule_for
from index.segment import Segment

CHUNK_ROWS = 256
"""Vectors gathered at once: 384 KB of dim 384, which stay in a core's cache until they are compared."""

EXACT_AT_ONCE = 32
"""Queries that all vectors are read for once; of a million ads, their scores take 128 MB."""

WALK_US = 3.0
"""Microseconds a graph search costs for each ad of its breadth, dim 384."""
SCAN_US = 0.2
"""For each ad that passes: its vector is fetched and compared."""
MASK_US = 0.005
"""For each ad of a segment that is held against a filter."""
SLACK = 1.3
"""How much broader than the share of passing ads asks for: the last of what a graph search finds are its worst."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ads that pass, best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    complete: bool
    """Whether no other ad passes."""


def search(
    route: Callable[[Filters], Sequence[Segment]],
    columns: EligibilityColumns,
    embeddings: NDArray[np.float32],
    wanted: Sequence[Wanted],
) -> list[Ranked]:
    """The best ads that each query may get.

    Args:
        route: gives the segments for some filters.
        columns: who may see which ad.
        embeddings: L2-normalised, shape (n, dim).
        wanted: what each of the n queries asks for.
    """
    answers: dict[int, Ranked] = {}
    for members in _alike(wanted):
        first = wanted[members[0]]
        segments = route(first.filters)
        rules = [rule_for(columns, wanted[member]) for member in members]
        found = _best(segments, embeddings[members], rules, first.top_k, first.effort)
        for member, rule, ranked in zip(members, rules, found, strict=True):
            if rule.may_thin:
                lone = embeddings[member : member + 1]
                answers[member] = _thinned(ranked, segments, lone, rule, first)
            else:
                answers[member] = ranked
    return [answers[position] for position in range(len(wanted))]


def exact_search(
    route: Callable[[Filters], Sequence[Segment]],
    columns: EligibilityColumns,
    embeddings: NDArray[np.float32],
    wanted: Sequence[Wanted],
) -> list[Ranked]:
    """As `search`, but every ad that passes is compared."""
    answers: dict[int, Ranked] = {}
    for members in _alike(wanted):
        top_k, segments = wanted[members[0]].top_k, route(wanted[members[0]].filters)
        rules = [rule_for(columns, wanted[member]) for member in members]
        # What is thinned is taken from all that pass, in their order.
        need, at_once = (columns.count, 1) if any(rule.may_thin for rule in rules) else (top_k, EXACT_AT_ONCE)
        for start in range(0, len(members), at_once):
            some, their_rules = members[start : start + at_once], rules[start : start + at_once]
            parts = [scan(segment, embeddings[some], their_rules, need) for segment in segments]
            for position, (member, rule) in enumerate(zip(some, their_rules, strict=True)):
                best = _merged([part[position] for part in parts], need) if parts else _NOTHING
                stays = np.flatnonzero(rule.thins(best.rows))[:top_k]
                answers[member] = Ranked(best.rows[stays], best.scores[stays], complete=len(stays) < top_k)
    return [answers[position] for position in range(len(wanted))]


def _alike(wanted: Sequence[Wanted]) -> Iterator[list[int]]:
    """Positions of queries that can be searched together: what they look at, and how much of it, is the same."""
    groups: dict[Hashable, list[int]] = {}
    for position, one in enumerate(wanted):
        groups.setdefault((one.top_k, one.effort, one.filters.targets), []).append(position)
    yield from groups.values()


def _thinned(
    ranked: Ranked, segments: Sequence[Segment], embedding: NDArray[np.float32], rule: Rule, wanted: Wanted
) -> Ranked:
    """What is left when the rule has thinned the list, searched on until there is enough; embedding (1, dim)."""
    need = wanted.top_k
    while True:
        kept = np.flatnonzero(rule.thins(ranked.rows))[: wanted.top_k]
        if len(kept) == wanted.top_k or ranked.complete:
            return Ranked(ranked.rows[kept], ranked.scores[kept], ranked.complete)
        need = max(2 * need, math.ceil(SLACK * need * wanted.top_k / max(1, len(kept))))
        [ranked] = _best(segments, embedding, [rule], need, wanted.effort)


def _best(
    segments: Sequence[Segment], embeddings: NDArray[np.float32], rules: Sequence[Rule], need: int, effort: float
) -> list[Ranked]:
    """Of each query the best `need` that pass, before thinning; an ad of several segments counts once."""
    found = [_find(segment, embeddings, rules, need, effort) for segment in segments]
    if len(found) == 1:
        return found[0]
    return [_merged(of_query, need) for of_query in zip(*found, strict=True)] or [_NOTHING] * len(rules)


_NOTHING = Ranked(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), complete=True)


def _merged(parts: Sequence[Ranked], need: int) -> Ranked:
    rows, first = np.unique(np.concatenate([part.rows for part in parts]), return_index=True)
    scores = np.concatenate([part.scores for part in parts])[first]
    order = np.lexsort((rows, -scores))[:need]
    complete = len(rows) <= need and all(part.complete for part in parts)
    return Ranked(rows[order], scores[order], complete)


def _find(
    segment: Segment, embeddings: NDArray[np.float32], rules: Sequence[Rule], need: int, effort: float
) -> list[Ranked]:
    """Of each query the best `need` ads of a segment that pass, all where fewer do."""
    if segment.graph is None:
        return scan(segment, embeddings, rules, need)
    passing = int(np.count_nonzero(rules[0].passes(segment.sample)))
    share = max(passing, 0.5) / len(segment.sample)
    ef_search = round(segment.ef_search * effort)
    breadth = need if passing == len(segment.sample) else math.ceil(SLACK * need / share)
    walk = _Walk(segment, max(ef_search, breadth), share)
    if walk.costs_more_than_a_scan:
        return scan(segment, embeddings, rules, need)
    found = segment.graph.search(embeddings, walk.breadth)
    if found is None:
        return scan(segment, embeddings, rules, need)
    answers = []
    for position, (rule, positions, scores) in enumerate(zip(rules, *found, strict=True)):
        ranked = _passing(segment, rule, positions, scores, need)
        if len(ranked.rows) < need and not ranked.complete:
            ranked = _search_on(walk, embeddings[position : position + 1], rule, need, len(ranked.rows))
        answers.append(ranked)
    return answers


@dataclass(frozen=True, slots=True)
class _Walk:
    """A search of a segment's graph."""

    segment: Segment
    breadth: int
    share: float
    """Of the segment that passes."""

    @property
    def costs_more_than_a_scan(self) -> bool:
        """Whether it does, as far as one can tell beforehand."""
        count = len(self.segment.rows)
        return WALK_US * self.breadth >= count * (MASK_US + SCAN_US * self.share)


def _search_on(walk: _Walk, embedding: NDArray[np.float32], rule: Rule, need: int, found: int) -> Ranked:
    """Search more broadly, by the share of what was found that passes; embedding (1, dim)."""
    segment = walk.segment
    assert segment.graph is not None
    while True:
        factor = max(2.0, SLACK * need / found) if found else math.inf
        breadth = min(factor * walk.breadth, len(segment.rows))
        walk = _Walk(segment, math.ceil(breadth), walk.share)
        result = None if walk.costs_more_than_a_scan else segment.graph.search(embedding, walk.breadth)
        if result is None:
            return scan(segment, embedding, [rule], need)[0]
        ranked = _passing(segment, rule, result[0][0], result[1][0], need)
        if len(ranked.rows) >= need or ranked.complete:
            return ranked
        found = len(ranked.rows)


def _passing(
    segment: Segment, rule: Rule, positions: NDArray[np.int64], scores: NDArray[np.float32], need: int
) -> Ranked:
    """What passes of the result of a graph search."""
    rows = segment.rows[positions]
    kept = np.flatnonzero(rule.passes(rows))
    complete = len(positions) == len(segment.rows) and len(kept) <= need
    return Ranked(rows[kept[:need]], scores[kept[:need]], complete)


def scan(segment: Segment, embeddings: NDArray[np.float32], rules: Sequence[Rule], need: int) -> list[Ranked]:
    """Compare each query with every ad of a segment that it may get; the rules have the same `targets`."""
    targeted = np.flatnonzero(rules[0].targets(segment.rows))
    rows = segment.rows[targeted]
    admitted = [rule.admits(rows) for rule in rules]
    kept = np.flatnonzero(np.logical_or.reduce(admitted))
    scores = _scores(segment, embeddings, targeted[kept])
    return [
        _top(rows[kept], np.where(own[kept], of_query, -np.inf), int(np.count_nonzero(own)), need)
        for own, of_query in zip(admitted, scores, strict=True)
    ]


def _scores(segment: Segment, embeddings: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosines of embeddings (n, dim) and the ads at some positions, shape (n, positions)."""
    if segment.graph is None and len(positions) == len(segment.rows):
        everything: NDArray[np.float32] = embeddings @ segment.vectors.T
        return everything
    scores = np.empty((len(embeddings), len(positions)), dtype=np.float32)
    for start in range(0, len(positions), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        scores[:, chunk] = embeddings @ segment.take(positions[chunk]).T
    return scores


def _top(rows: NDArray[np.int64], scores: NDArray[np.float32], passing: int, need: int) -> Ranked:
    """The best of some ads, of which `passing` have a score."""
    kept = np.argpartition(-scores, need - 1)[:need] if need < len(scores) else np.arange(len(scores))
    order = kept[np.lexsort((rows[kept], -scores[kept]))][:passing]
    return Ranked(rows[order], scores[order], complete=passing <= need)
