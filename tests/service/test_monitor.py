"""The recall monitor on a real index, with answers whose recall is known."""

from pathlib import Path

import numpy as np
import pytest

from index.filters import Filters, Wanted
from index.load import FrozenIndex
from service.monitor import LAST_SAMPLES, RecallMonitor
from service.release import Release
from tests.index.support import WordEmbedder
from tests.service.releases_beside import LaneByHand, build_small_index, hits_of, release_of


@pytest.fixture(scope="module")
def ad_index(tmp_path_factory) -> FrozenIndex:
    return build_small_index(tmp_path_factory.mktemp("monitor"), 300)


@pytest.fixture
def release(ad_index: FrozenIndex) -> Release:
    return release_of("a", ad_index)


@pytest.fixture
def lane() -> LaneByHand:
    return LaneByHand()


@pytest.fixture
def monitor(lane: LaneByHand, release: Release) -> RecallMonitor:
    monitor = RecallMonitor(lane.lane, lane.metrics, share=1)
    monitor.serve(release)
    return monitor


def exact_rows(ad_index: FrozenIndex, embedding: np.ndarray) -> list[int]:
    """All rows by falling cosine, calculated in another way than the monitor does."""
    scores = [float(np.dot(vector.astype(np.float64), embedding)) for vector in np.asarray(ad_index.vectors)]
    return sorted(range(len(scores)), key=lambda row: -scores[row])


WANTED = Wanted(100)
EMBEDDING = WordEmbedder().encode([WordEmbedder().tokenize("cordless drill")])[0]


def with_misses(rows: list[int], count: int, misses: int) -> list[int]:
    """The best `count` rows, of which the last are replaced by the worst ones there are."""
    return rows[: count - misses] + rows[len(rows) - misses :]


def test_recall_is_the_share_of_the_exact_answer_that_was_found(monitor, lane, release, ad_index):
    rows = exact_rows(ad_index, EMBEDDING)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, with_misses(rows, 100, misses=7)))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) == 1
    assert lane.value("hlm_ann_recall", release="a", k=100) == pytest.approx(0.93)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, with_misses(rows, 10, misses=4)))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) == pytest.approx((1 + 0.6) / 2)
    assert lane.value("hlm_ann_recall_samples_total", release="a", k=10) == 2
    assert lane.value("hlm_ann_recall_samples_total", release="a", k=100) == 1


def test_recall_is_measured_against_the_ads_that_the_request_may_get(monitor, lane, release, ad_index):
    rows = exact_rows(ad_index, EMBEDDING)
    advertiser = ad_index.ads.field("advertiser_id", np.array(rows[:1]))[0]
    others = [row for row in rows if ad_index.ads.field("advertiser_id", np.array([row]))[0] != advertiser]
    wanted = Wanted(100, Filters(exclude_advertisers=frozenset({advertiser})))
    monitor.offer(release, EMBEDDING, wanted, hits_of(ad_index, with_misses(others, 10, misses=3)))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) == pytest.approx(0.7)


def test_the_figure_is_of_the_last_samples(monitor, lane, release, ad_index):
    rows = exact_rows(ad_index, EMBEDDING)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, with_misses(rows, 10, misses=10)))
    for _ in range(LAST_SAMPLES - 1):
        monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, rows[:10]))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) == pytest.approx(1 - 1 / LAST_SAMPLES)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, rows[:10]))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) == 1


def test_degraded_and_short_answers_and_those_of_unknown_releases_do_not_count(monitor, lane, release, ad_index):
    rows = exact_rows(ad_index, EMBEDDING)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, rows[:10]), degraded=True)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(ad_index, rows[:9]))
    monitor.offer(release_of("b", ad_index), EMBEDDING, WANTED, hits_of(ad_index, rows[:10]))
    assert lane.jobs == []


def test_only_the_share_is_searched_exactly(lane, release, ad_index):
    monitor = RecallMonitor(lane.lane, lane.metrics, share=0.1)
    monitor.serve(release)
    hits = hits_of(ad_index, list(range(10)))
    for _ in range(2_000):
        monitor.offer(release, EMBEDDING, WANTED, hits)
    assert len(lane.jobs) == pytest.approx(200, abs=60)


def test_a_retired_release_leaves_no_series_even_if_a_sample_of_it_was_waiting(monitor, lane, release, ad_index):
    hits = hits_of(ad_index, exact_rows(ad_index, EMBEDDING)[:10])
    monitor.offer(release, EMBEDDING, WANTED, hits)
    lane.run_all()
    monitor.offer(release, EMBEDDING, WANTED, hits)
    monitor.retire(release)
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) is None
    assert lane.value("hlm_ann_recall_samples_total", release="a", k=10) is None


def test_a_release_loaded_anew_under_its_name_keeps_its_series(monitor, lane, release, ad_index):
    hits = hits_of(ad_index, exact_rows(ad_index, EMBEDDING)[:10])
    again = release_of("a", ad_index)
    monitor.serve(again)
    monitor.offer(again, EMBEDDING, WANTED, hits)
    lane.run_all()
    monitor.retire(release)
    assert lane.value("hlm_ann_recall", release="a", k=10) == 1


def test_rows_of_another_table_of_ads_are_not_compared(monitor, lane, release, ad_index, tmp_path: Path):
    other = build_small_index(tmp_path, 50)
    monitor.offer(release, EMBEDDING, WANTED, hits_of(other, list(range(10))))
    lane.run_all()
    assert lane.value("hlm_ann_recall", release="a", k=10) is None
