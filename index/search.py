"""Searches all segments of a request for what it may get.

What no mask can say row by row (pass-through, the cap per advertiser) is taken away from the merged list of all
segments, best first, and made up for by searching on.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.columns import EligibilityColumns
from index.filters import Filters, Rule, Wanted, rule_for
from index.ranking import NOTHING, Ranked, merged
from index.segment import Segment
from index.segment_search import LEAST_SLACK, find, scan

EXACT_AT_ONCE = 32
"""Queries that all vectors are read for once; of a million ads, their scores take 128 MB."""


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
                best = merged([part[position] for part in parts], need) if parts else NOTHING
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
        need = max(2 * need, math.ceil(LEAST_SLACK * need * wanted.top_k / max(1, len(kept))))
        [ranked] = _best(segments, embedding, [rule], need, wanted.effort)


def _best(
    segments: Sequence[Segment], embeddings: NDArray[np.float32], rules: Sequence[Rule], need: int, effort: float
) -> list[Ranked]:
    """Of each query the best `need` that pass, before thinning; an ad of several segments counts once."""
    floors = np.full(len(rules), -np.inf, dtype=np.float32)
    found = []
    for segment in segments:
        found.append(find(segment, embeddings, rules, floors, need, effort))
        lasts = [part.scores[-1] if len(part.rows) == need else -np.inf for part in found[-1]]
        floors = np.maximum(floors, lasts)
    if len(found) == 1:
        return found[0]
    return [merged(of_query, need) for of_query in zip(*found, strict=True)] or [NOTHING] * len(rules)
