"""Changes as their callers write them: what is read, what is refused, and what a patch leaves alone."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from index.changes import AdPatch, CampaignPatch, parse_upsert, patched, patched_campaign
from index.feed import FeedAd
from index.targeting import Campaign
from tests.index.support import DIM, unit_vectors

AD = {"ad_id": "a", "title": "Cordless drill", "bid": 0.5, "status": "active", "colour": "red"}


def line(**fields: Any) -> bytes:
    return json.dumps(AD | fields).encode()


def test_a_line_gives_the_ad_without_its_embedding_and_the_embedding_scaled_to_norm_1():
    embedding = unit_vectors(1)[0].astype(np.float16).astype(np.float64)
    ad, found = parse_upsert(line(embedding=embedding.tolist()), DIM)
    assert found is not None
    np.testing.assert_allclose(found, embedding / np.linalg.norm(embedding), atol=1e-6)
    assert abs(float(np.linalg.norm(found.astype(np.float64))) - 1) < 1e-6
    assert found.dtype == np.float32
    assert ad.embedding is None
    assert (ad.ad_id, ad.bid, ad.columns()["attrs"]) == ("a", 0.5, {"colour": "red"})


def test_a_line_may_leave_the_embedding_to_an_encoder():
    assert parse_upsert(line(), DIM)[1] is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"ad_id": "a"}', "title: field required"),
        (line(embedding=[]), "embedding: missing"),
        (line(embedding=[1.0]), f"embedding: not of dim {DIM}"),
        (line(embedding=[1.0] * DIM), "embedding: norm is not 1"),
        (line(embedding=[1e300] * DIM), "embedding: norm is not 1"),
        (line(embedding=["1"] * DIM), "embedding: input should be a valid number"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(bad: bytes, reason: str):
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse_upsert(bad, DIM)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "paused"}, {"status": "paused", "bid": 0.5}),
        ({"bid": 2}, {"status": "active", "bid": 2.0}),
        ({"bid": None}, {"status": "active", "bid": None}),
        ({"status": None, "bid": 0}, {"status": None, "bid": 0.0}),
    ],
)
def test_a_patch_changes_what_it_gives_and_nothing_else(body: dict[str, Any], expected: dict[str, Any]):
    ad = FeedAd.model_validate(AD)
    after = patched(ad, AdPatch.model_validate_json(json.dumps(body)))
    assert after.columns() == ad.columns() | expected
    assert ad == FeedAd.model_validate(AD)


@pytest.mark.parametrize("body", [{}, {"bid": -1}, {"bid": "1"}, {"title": "x"}, {"status": 1}, []])
def test_an_unfit_patch_of_an_ad_is_refused(body: object):
    with pytest.raises(ValidationError):
        AdPatch.model_validate_json(json.dumps(body))


def test_a_campaign_keeps_what_a_patch_leaves_out():
    campaign = Campaign(campaign_id="c", budget="exhausted", negative_keywords=["free"])
    patch = CampaignPatch.model_validate_json('{"pass_through_rate": 0.25, "ends_at": "2026-12-01T00:00:00+01:00"}')
    after = patched_campaign(campaign, patch)
    assert (after.campaign_id, after.budget, after.negative_keywords) == ("c", "exhausted", ["free"])
    assert after.pass_through_rate == 0.25
    assert after.schedule.ends_at == 1_796_079_600  # 2026-11-30T23:00:00Z
    assert patched_campaign(after, CampaignPatch(negative_keywords=None)).negative_keywords is None


@pytest.mark.parametrize("body", [{}, {"bid": 1}, {"budget": "low"}, {"budget": None}, {"pass_through_rate": 1.5}])
def test_an_unfit_patch_of_a_campaign_is_refused(body: object):
    with pytest.raises(ValidationError):
        CampaignPatch.model_validate_json(json.dumps(body))
