"""Searches with filters against an oracle that reads the feed's own lines, one ad after another."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.build import BuildOptions, build_index
from index.filters import Filters, Wanted
from index.load import FrozenIndex, load_index
from tests.index.made_up_ads import ADS, CAMPAIGNS, NOW, VECTORS, may_see, requests, truth
from tests.index.support import DIM, inputs, unit_vectors, write_feed


@pytest.fixture(scope="module")
def ad_index(tmp_path_factory) -> FrozenIndex:
    directory = tmp_path_factory.mktemp("filtered")
    feed = write_feed(directory / "feed.jsonl", ADS)
    campaigns = write_feed(directory / "campaigns.jsonl", CAMPAIGNS)
    build_index(inputs(feed, embeddings="feed", campaigns=campaigns), directory / "out", BuildOptions(k=20))
    return load_index(directory / "out")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(requests, min_size=1, max_size=5), seed=st.integers(0, 50))
def test_what_is_found_is_what_each_request_may_see(ad_index: FrozenIndex, wanted: list[Wanted], seed: int):
    embeddings = unit_vectors(len(wanted), DIM, seed=100 + seed)
    exact = ad_index.exact_search(embeddings, wanted)
    for embedding, one, hits, best in zip(embeddings, wanted, ad_index.search(embeddings, wanted), exact, strict=True):
        expected = truth(embedding, one)
        assert best.rows.tolist() == expected
        assert all(may_see(ADS[row], one) for row in hits.rows.tolist())
        assert len(hits.rows) == len(set(hits.rows.tolist())) == len(expected)
        assert hits.short == (None if len(expected) == one.top_k else "filtered")
        if one.top_k > 1:
            assert len(set(hits.rows.tolist()) & set(expected)) >= 0.7 * len(expected)
        assert hits.scores == pytest.approx(VECTORS[hits.rows] @ embedding, abs=1e-5)


def test_recall_with_filters_is_that_of_the_unfiltered_search(ad_index: FrozenIndex):
    embeddings = unit_vectors(200, DIM, seed=9)
    for filters in (Filters(), Filters(min_bid=0.5), Filters(min_bid=0.9), Filters(device="mobile", market="us")):
        wanted = [Wanted(20, filters, at=NOW.timestamp())] * 200
        found = ad_index.search(embeddings, wanted)
        shares = [
            len(set(hits.rows.tolist()) & set(truth(embedding, wanted[0]))) / 20
            for hits, embedding in zip(found, embeddings, strict=True)
        ]
        assert np.mean(shares) >= 0.95, filters


def test_an_ad_that_is_paused_is_found_no_more_and_one_that_is_resumed_again(ad_index: FrozenIndex):
    embedding, wanted = VECTORS[2:3].astype(np.float32), Wanted(5, at=NOW.timestamp())
    columns, shown = ad_index.eligibility, truth(VECTORS[2], wanted)
    columns.set_active(shown[0], active=False)
    try:
        [hits] = ad_index.search(embedding, [wanted])
        assert shown[0] not in hits.rows
        assert len(hits.rows) == 5
    finally:
        columns.set_active(shown[0], active=True)
    [hits] = ad_index.search(embedding, [wanted])
    assert hits.rows[0] == shown[0]


def test_earlier_hits_lose_what_may_not_be_shown_any_more(ad_index: FrozenIndex):
    wanted = Wanted(10, at=NOW.timestamp())
    [hits] = ad_index.search(VECTORS[5:6].astype(np.float32), [wanted])
    gone = int(hits.rows[3])
    ad_index.eligibility.set_active(gone, active=False)
    try:
        left = ad_index.still_eligible(hits, wanted)
    finally:
        ad_index.eligibility.set_active(gone, active=True)
    assert left.rows.tolist() == [row for row in hits.rows.tolist() if row != gone]
    assert math.isclose(left.scores[0], hits.scores[0])
    assert len(ad_index.still_eligible(hits, Wanted(10, Filters(min_bid=2.0), at=wanted.at)).rows) == 0


def test_equal_requests_of_a_batch_are_answered_as_if_alone(ad_index: FrozenIndex):
    embeddings = unit_vectors(6, DIM, seed=4)
    wanted = [
        Wanted(20, Filters(market="gb", min_bid=0.2), query, at=NOW.timestamp()) for query in ("drill", "cheap") * 3
    ]
    together = ad_index.search(embeddings, wanted)
    for position, hits in enumerate(together):
        [alone] = ad_index.search(embeddings[position : position + 1], [wanted[position]])
        assert hits.rows.tolist() == alone.rows.tolist()


def test_a_campaign_takes_part_in_its_share_of_the_requests_and_in_the_same_ones_again(ad_index: FrozenIndex):
    from index.targeting import Campaign

    embedding = VECTORS[8:9].astype(np.float32)
    plain = Wanted(200, at=NOW.timestamp())
    wanted = [Wanted(200, request_id=f"r-{number}", at=plain.at) for number in range(300)]
    ad_index.eligibility.set_campaign(Campaign(campaign_id="c6", pass_through_rate=0.25))
    try:
        found = ad_index.search(embedding.repeat(300, axis=0), wanted)
        again = ad_index.search(embedding, wanted[:1])[0]
    finally:
        ad_index.eligibility.set_campaign(Campaign(campaign_id="c6"))
    takes_part = []
    for hits in found:
        assert len(hits.rows) == 200
        assert not hits.for_others
        takes_part.append(any(ADS[row]["campaign_id"] == "c6" for row in hits.rows.tolist()))
    assert np.mean(takes_part) == pytest.approx(0.25, abs=0.08)
    assert again.rows.tolist() == found[0].rows.tolist()
