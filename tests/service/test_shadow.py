"""Releases beside stable on real indexes: stable has 300 ads, the other the first 200 of them."""

import numpy as np
import pytest

from index.filters import Wanted
from index.load import FrozenIndex
from service.release import Release
from service.shadow import Shadow
from tests.service.releases_beside import LaneByHand, build_small_index, release_of

QUERY = "cordless drill"
WANTED = Wanted(150, query=QUERY)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory) -> tuple[FrozenIndex, FrozenIndex]:
    return tuple(build_small_index(tmp_path_factory.mktemp("shadow"), count) for count in (300, 200))


@pytest.fixture
def stable(indexes) -> Release:
    return release_of("stable", indexes[0])


@pytest.fixture
def smaller(indexes) -> Release:
    return release_of("smaller", indexes[1])


@pytest.fixture
def lane() -> LaneByHand:
    return LaneByHand()


@pytest.fixture
def shadow(lane: LaneByHand) -> Shadow:
    return Shadow(lane.lane, lane.metrics)


def answer(release: Release):
    embedding = release.encoder.encode([release.encoder.tokenize(QUERY)])
    return release.ad_index.search(embedding, [WANTED])[0]


def best(release: Release) -> list[tuple[float, str]]:
    """Score and ad_id of every ad in falling score, calculated in another way than the index does."""
    embedding = release.encoder.encode([release.encoder.tokenize(QUERY)])[0].astype(np.float64)
    vectors = np.asarray(release.ad_index.vectors)
    scored = [
        (float(vector @ embedding), ad_id) for vector, ad_id in zip(vectors, release.ad_index.ads.ad_ids, strict=True)
    ]
    return sorted(scored, reverse=True)


def test_a_release_like_stable_agrees_with_it_entirely(shadow, lane, stable, indexes):
    shadow.compare({release_of("twin", indexes[0]): 1})
    shadow.offer(WANTED, stable, answer(stable))
    lane.run_all()
    assert lane.value("hlm_release_overlap", release="twin", k=10) == 1
    assert lane.value("hlm_release_overlap", release="twin", k=100) == 1
    assert lane.value("hlm_release_mean_score_difference", release="twin") == pytest.approx(0, abs=1e-6)
    assert lane.value("hlm_release_compared_queries_total", release="twin") == 1
    for stage in ("encode", "search"):
        assert lane.value("hlm_release_compared_processor_seconds_count", release="twin", stage=stage) == 1


def test_overlap_and_score_difference_are_those_of_the_two_answers(shadow, lane, stable, smaller):
    ours, theirs = best(stable), best(smaller)
    expected = len({ad for _, ad in ours[:100]} & {ad for _, ad in theirs[:100]}) / 100
    assert 0.3 < expected < 0.9  # otherwise this shows nothing
    shadow.compare({smaller: 1})
    shadow.offer(WANTED, stable, answer(stable))
    lane.run_all()
    assert lane.value("hlm_release_overlap", release="smaller", k=100) == pytest.approx(expected, abs=0.021)
    difference = sum(score for score, _ in theirs[:100]) / 100 - sum(score for score, _ in ours[:100]) / 100
    assert lane.value("hlm_release_mean_score_difference", release="smaller") == pytest.approx(difference, abs=1e-4)


def test_nothing_is_compared_with_itself_or_while_there_is_nothing_beside_stable(shadow, lane, stable):
    shadow.offer(WANTED, stable, answer(stable))
    shadow.compare({stable: 1})
    shadow.offer(WANTED, stable, answer(stable))
    assert lane.jobs == []


def test_each_release_gets_its_own_share(shadow, lane, stable, smaller, indexes):
    shadow.compare({smaller: 0.1, release_of("twin", indexes[0]): 0.5})
    hits = answer(stable)
    for _ in range(1_000):
        shadow.offer(WANTED, stable, hits)
    assert len(lane.jobs) == pytest.approx(600, abs=100)


def test_canary_and_shadow_are_compared_side_by_side(shadow, lane, stable, smaller, indexes):
    shadow.compare({smaller: 1, release_of("twin", indexes[0]): 1})
    shadow.offer(WANTED, stable, answer(stable))
    lane.run_all()
    assert lane.value("hlm_release_compared_queries_total", release="smaller") == 1
    assert lane.value("hlm_release_compared_queries_total", release="twin") == 1


def test_a_release_that_is_compared_no_more_leaves_no_series_and_one_that_is_keeps_its_own(
    shadow, lane, stable, smaller, indexes
):
    twin = release_of("twin", indexes[0])
    shadow.compare({smaller: 1, twin: 1})
    shadow.offer(WANTED, stable, answer(stable))
    lane.run_all()
    shadow.offer(WANTED, stable, answer(stable))
    shadow.compare({twin: 1})
    lane.run_all()
    names = {sample.labels.get("release") for family in lane.registry.collect() for sample in family.samples}
    assert "twin" in names
    assert "smaller" not in names
    assert lane.value("hlm_release_compared_queries_total", release="twin") == 2


def test_short_answers_have_an_overlap_at_the_k_that_they_reach(shadow, lane, stable, indexes):
    twin = release_of("twin", indexes[0])
    shadow.compare({twin: 1})
    embedding = stable.encoder.encode([stable.encoder.tokenize(QUERY)])
    shadow.offer(Wanted(20, query=QUERY), stable, stable.ad_index.search(embedding, [Wanted(20)])[0])
    lane.run_all()
    assert lane.value("hlm_release_overlap", release="twin", k=10) == 1
    assert lane.value("hlm_release_overlap", release="twin", k=100) is None
