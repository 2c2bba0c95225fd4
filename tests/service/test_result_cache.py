"""Whole results that are used again for a moment."""

from typing import Any, cast

import numpy as np

from index.ad_index import SearchHits
from index.filters import NO_FILTERS, Wanted
from service.cache import ResultCache, ResultKey
from service.release import Release


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class StandInIndex:
    """Lets every ad be shown but the first of a result."""

    def still_eligible(self, hits: SearchHits, wanted: Wanted) -> SearchHits:
        return SearchHits(hits.rows[1:], hits.scores[1:], hits.ads)


def release(ad_index: object = None) -> Release:
    return Release("name", None, cast("Any", ad_index), "m", "i")  # type: ignore[arg-type]


def hits() -> SearchHits:
    return SearchHits(np.arange(3), np.ones(3, dtype=np.float32), cast("Any", None))


def test_a_retired_release_keeps_no_results_and_gets_none():
    """Its last requests are answered after another has taken over."""
    cache, old, new = ResultCache(1.0, Clock()), release(), release()
    cache.put(ResultKey(old, "drill", 3, NO_FILTERS), hits())
    cache.retire(old)
    assert len(cache) == 0
    cache.put(ResultKey(old, "drill", 3, NO_FILTERS), hits())
    cache.put(ResultKey(new, "drill", 3, NO_FILTERS), hits())
    assert len(cache) == 1


def test_a_result_with_an_ad_that_may_not_be_shown_any_more_is_searched_again():
    cache, key = ResultCache(1.0, Clock()), ResultKey(release(StandInIndex()), "drill", 3, NO_FILTERS)
    cache.put(key, hits())
    assert cache.get(key, Wanted(3)) is None
    assert len(cache) == 0
