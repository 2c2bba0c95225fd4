from itertools import islice

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.skew import AOL_SHARES, Law, Replay, distinct_queries, fit_law

FEW = Law(ranks=3, exponent=1.0, shift=0.0, scale=0.3)
"""Shares 0.3, 0.15 and 0.1; the rest is never seen again."""


def test_the_law_goes_through_the_shares_of_the_log():
    law = fit_law()
    cumulative = law.cumulative()
    assert {head: cumulative[head - 1] for head in AOL_SHARES} == pytest.approx(AOL_SHARES, rel=1e-6)
    assert (np.diff(cumulative, 2) < 0).all(), "a rank has less than the one before it"


def test_a_plain_zipf_law_is_found_again():
    harmonic = np.cumsum(1 / (np.arange(1.0, 10_001) + 4))
    shares = {n: 0.5 * float(harmonic[n - 1] / harmonic[-1]) for n in (10, 100, 10_000)}
    law = fit_law(shares)
    assert law.exponent == pytest.approx(1, rel=1e-4)
    assert law.shift == pytest.approx(4, rel=1e-3)


def test_the_replayed_queries_have_the_shares_of_the_law():
    replay = Replay((f"query {number}" for number in range(2_000)), FEW, seed=1)
    drawn = list(islice(replay.stream(), 20_000))
    assert replay.share(1) == pytest.approx(0.30, abs=0.013)  # four standard deviations
    assert replay.share(3) == pytest.approx(0.55, abs=0.015)
    assert drawn.count("query 0") == pytest.approx(6_000, abs=260)
    assert drawn.count("query 2") == pytest.approx(2_000, abs=170)


def test_what_is_not_among_the_head_is_never_repeated():
    replay = Replay(["a", "b", "c", *(f"rare {number}" for number in range(150))], FEW, seed=1)
    drawn = list(islice(replay.stream(), 5_000))
    rare = [query for query in drawn if query not in {"a", "b", "c"}]
    assert len(rare) > 2_000
    assert len(set(rare)) == len(rare)
    assert replay.repeated == len(drawn) - len(set(drawn))


def test_too_few_queries_for_the_law_are_refused():
    with pytest.raises(BenchmarkError, match="7 distinct queries are needed, also in pairs; found 4"):
        Replay(["a", "b"], Law(ranks=7, exponent=1.0, shift=0.0, scale=0.1), seed=1)


def test_the_same_seed_replays_the_same_queries():
    queries = [f"query {number}" for number in range(100)]
    one, same, other = (list(islice(Replay(queries, FEW, seed=seed).stream(), 50)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_more_distinct_queries_are_made_of_two():
    assert list(distinct_queries(["a", "b", "a", "c"])) == [
        *("a", "b", "c"),
        *("a b", "b c", "c a"),
        *("a c", "b a", "c b"),
    ]
    assert list(distinct_queries(["a", "b", "a b"])).count("a b") == 1
