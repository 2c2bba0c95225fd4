"""What a live index must answer, worked out from plain dictionaries, and changes to try it with."""

import itertools
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import FeedReport, HnswParams, IndexManifest, RecallReport
from index.ad_index import SearchHits
from index.changes import (
    AdPatch,
    AdState,
    CampaignPatch,
    CampaignState,
    Change,
    Delete,
    PatchAd,
    PatchCampaign,
    State,
    Upsert,
)
from index.feed import FeedAd
from index.filters import Filters, Wanted
from index.targeting import Campaign
from tests.index.support import DIM, SPACE, unit_vectors

PLACES = (None, "us", "de")
STATUSES = (None, "active", "paused")
BIDS = (None, 0.0, 0.5, 2.0)
BLANK = IndexManifest(
    fingerprint="",
    space=SPACE,
    files={},
    tools={},
    index_version="blank-1",
    model_version=None,
    ad_count=0,
    campaigns=0,
    dim=SPACE.dim,
    backend="hnswlib",
    hnsw=HnswParams(),
    segments=[],
    recall=RecallReport(k=100, target=0.97, ann_recall=1.0, query_count=0, query_source="none"),
    feed=FeedReport(name="blank", sha256="", lines=0, ads=0, not_active=0, skipped={}),
)
"""What a manifest says of the space that the changes are in."""
VECTORS = unit_vectors(5000, seed=77)


@dataclass
class Oracle:
    """Ads and campaigns as their last changes say, and the changes in their order."""

    ads: dict[str, tuple[FeedAd, NDArray[np.float32]]] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    sequence: int = 0

    def make(self, change: Change) -> State:
        """Make a change; gives what is true after it."""
        self.sequence += 1
        match change:
            case Upsert(ad, embedding):
                self.ads[ad.ad_id] = (ad, embedding)
                return AdState(self.sequence, ad.ad_id, ad, embedding)
            case Delete(ad_id):
                self.ads.pop(ad_id, None)
                return AdState(self.sequence, ad_id, None, None)
            case PatchAd(ad_id, patch):
                ad, embedding = self.ads[ad_id]
                ad = ad.model_copy(update={name: getattr(patch, name) for name in patch.model_fields_set})
                self.ads[ad_id] = (ad, embedding)
                return AdState(self.sequence, ad_id, ad, None)
            case PatchCampaign(campaign_id, patch):
                before = self.campaigns.get(campaign_id) or Campaign(campaign_id=campaign_id)
                given = {name: getattr(patch, name) for name in patch.model_fields_set}
                self.campaigns[campaign_id] = before.model_copy(update=given)
                return CampaignState(self.sequence, self.campaigns[campaign_id])

    def best(self, embedding: NDArray[np.float32], wanted: Wanted) -> list[tuple[str, float]]:
        """Ids and scores, best first."""
        filters = wanted.filters
        scored = [
            (ad_id, float(embedding.astype(np.float64) @ vector.astype(np.float64)))
            for ad_id, (ad, vector) in self.ads.items()
            if self._may_show(ad)
            and (filters.market is None or ad.market is None or filters.market in ad.market)
            and (filters.language is None or ad.language is None or filters.language in ad.language)
            and (filters.min_bid is None or (ad.bid is not None and ad.bid >= filters.min_bid))
        ]
        return sorted(scored, key=lambda pair: -pair[1])[: wanted.top_k]

    def _may_show(self, ad: FeedAd) -> bool:
        campaign = self.campaigns.get(ad.campaign_id or "")
        servable = campaign is None or (campaign.status in (None, "active") and campaign.budget == "available")
        return servable and ad.status in (None, "active")


WANTED = tuple(
    Wanted(top_k, Filters(market=market, language=language, min_bid=min_bid))
    for top_k, market, language, min_bid in itertools.product((3, 40), PLACES, (None, "en"), (None, 0.5))
)


def random_upsert(chance: random.Random, ad_id: str) -> Upsert:
    """An ad in a few markets and campaigns."""
    fields = {
        "market": chance.choice([None, ["us"], ["de"], ["us", "de"]]),
        "language": chance.choice([None, ["en"], ["de"]]),
        "campaign_id": chance.choice([None, "c0", "c1"]),
        "advertiser_id": chance.choice([None, "a", "b"]),
        "status": chance.choice(STATUSES),
        "bid": chance.choice(BIDS),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    ad = FeedAd.model_validate({"ad_id": ad_id, "title": f"ad {chance.random()}", **given})
    return Upsert(ad, VECTORS[chance.randrange(len(VECTORS))])


def random_change(chance: random.Random, oracle: Oracle, ids: int) -> Change:
    """A change of an ad that there is, of one that was, or of one that never was; or of a campaign."""
    ad_id = f"ad-{chance.randrange(ids)}"
    kind = chance.choices(("upsert", "delete", "patch", "campaign"), (5, 2, 4, 1))[0]
    if kind == "campaign":
        patch = CampaignPatch(status=chance.choice(STATUSES), budget=chance.choice(("available", "exhausted")))
        return PatchCampaign(chance.choice(("c0", "c1")), patch)
    if kind == "delete" and ad_id in oracle.ads:
        return Delete(ad_id)
    if kind == "patch" and ad_id in oracle.ads:
        return PatchAd(ad_id, AdPatch(status=chance.choice(STATUSES), bid=chance.choice(BIDS)))
    return random_upsert(chance, ad_id)


def assert_answers(hits: list[SearchHits], oracle: Oracle, embeddings: NDArray[np.float32]) -> None:
    """Whether each of `WANTED`, asked with the embedding of its position, got what it must."""
    for found, wanted, embedding in zip(hits, WANTED, embeddings, strict=True):
        expected = oracle.best(embedding, wanted)
        assert len(found.rows) == len(expected), wanted
        assert np.allclose(found.scores, [score for _, score in expected], atol=1e-5)
        assert set(found.ad_ids) == {ad_id for ad_id, _ in expected} or _tied(found, expected)
        bids = found.ads.field("bid", found.rows)
        assert bids == [oracle.ads[ad_id][0].bid for ad_id in found.ad_ids]
        assert found.ads.field("title", found.rows) == [oracle.ads[ad_id][0].title for ad_id in found.ad_ids]


def _tied(found: SearchHits, expected: list[tuple[str, float]]) -> bool:
    """Whether they differ only among those that are as good as the last."""
    last = expected[-1][1]
    return {ad_id for ad_id, score in zip(found.ad_ids, found.scores, strict=True) if score > last + 1e-5} == {
        ad_id for ad_id, score in expected if score > last + 1e-5
    }


def queries() -> NDArray[np.float32]:
    """One for each of `WANTED`."""
    return unit_vectors(len(WANTED), DIM, seed=5)
