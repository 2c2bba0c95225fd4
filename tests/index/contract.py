"""What every `AdIndex` promises, as tests that any backend can take: one in memory, or one behind a network.

A backend takes them by subclassing in a test module of its own, as `test_contract.py` does for those there are:

    class TestMine(SearchContract):
        score_tolerance = 1e-3

        @pytest.fixture(scope="class")
        @classmethod
        def ad_index(cls) -> Iterator[AdIndex]: ...     # holds ADS and CAMPAIGNS of this module

    class TestMineChanging(ChangeContract):
        @pytest.fixture
        def changing(self) -> Iterator[Changing]: ...    # holds nothing yet

Nothing here asks for rows by number, for changes that are seen in the same instant, or for the same answer twice from
an approximate search. Nobody else writes to what the fixtures give.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ad_index import AdIndex, SearchHits
from index.changes import AdPatch, CampaignPatch, Change, Delete, PatchAd, PatchCampaign, Upsert
from index.feed import FeedAd
from index.filters import Filters, Wanted
from tests.index import made_up_ads
from tests.index.live_oracle import WANTED, Oracle, assert_answers, queries, random_change
from tests.index.made_up_ads import ADS, NOW, VECTORS, may_see, takes_part, truth
from tests.index.support import DIM, unit_vectors
from tests.waiting import wait_until

RATES = {"c6": 0.25}
CAMPAIGNS: list[dict[str, Any]] = [
    *made_up_ads.CAMPAIGNS,
    *({"campaign_id": name, "pass_through_rate": rate} for name, rate in RATES.items()),
]
AT = NOW.timestamp()
BY_ID = {ad["ad_id"]: number for number, ad in enumerate(ADS)}
FILTERS = (
    Filters(),
    Filters(market="us", language="en"),
    Filters(min_bid=0.5),
    Filters(min_bid=0.97),
    Filters(market="gb", device="mobile", exclude_categories=frozenset({"Toys"})),
    Filters(exclude_advertisers=frozenset("abc"), max_per_advertiser=2),
)
QUERIES = unit_vectors(30, DIM, seed=11)


def wanted_of(filters: Filters, top_k: int = 20, query: str = "drill") -> list[Wanted]:
    """One request for each of `QUERIES`."""
    return [Wanted(top_k, filters, query, f"r-{number}", AT) for number in range(len(QUERIES))]


def random_wanted(count: int) -> list[Wanted]:
    """Requests of every kind, each unlike the others."""
    chance = random.Random(5)
    return [
        Wanted(
            top_k=chance.choice([1, 20, 200]),
            filters=Filters(
                market=chance.choice([None, "us", "US", "gb", "ca", "fr"]),
                language=chance.choice([None, "en", "es", "fr"]),
                device=chance.choice([None, "mobile", "Desktop", "watch"]),
                exclude_advertisers=frozenset(chance.sample("abcxyz", chance.randrange(3))),
                exclude_categories=frozenset(chance.sample(["Toys", "Tools", "Tools > Saws", "Food"], 1)),
                min_bid=chance.choice([None, None, 0.0, 0.5, 0.98]),
                max_per_advertiser=chance.choice([None, None, 1, 3]),
                utc_offset_minutes=chance.choice([0, 60, -600, 720]),
            ),
            query=chance.choice(["drill", "cheap drill", "red drill", "a tooth brush", "free drill now"]),
            request_id=f"r-{number}",
            at=AT,
        )
        for number in range(count)
    ]


class SearchContract:
    """What is promised to those who search."""

    score_tolerance: ClassVar[float] = 1e-5
    """How far a score may be from the cosine of the float32 vectors."""
    least_recall: ClassVar[float] = 0.95
    """Of a search against the truth, on average."""

    @pytest.fixture(scope="class")
    @classmethod
    def ad_index(cls) -> Iterator[AdIndex]:
        """All of `ADS` with their embeddings, and `CAMPAIGNS`."""
        raise NotImplementedError

    def assert_right(self, hits: SearchHits, embedding: NDArray[np.float32], wanted: Wanted) -> list[str]:
        """What holds for each answer, however approximate; gives the ids that are the truth."""
        expected = [ADS[row]["ad_id"] for row in truth(embedding, wanted, RATES)]
        ad_ids = hits.ad_ids
        found = [ADS[BY_ID[ad_id]] for ad_id in ad_ids]
        assert len(set(ad_ids)) == len(ad_ids) == len(hits.scores) == len(expected)
        assert all(may_see(ad, wanted) and takes_part(ad, wanted, RATES) for ad in found)
        most = wanted.filters.max_per_advertiser
        for advertiser in {ad["advertiser_id"] for ad in found} - {None} if most else ():
            assert sum(ad["advertiser_id"] == advertiser for ad in found) <= most
        assert (np.diff(hits.scores) <= 0).all()
        cosines = VECTORS[[BY_ID[ad_id] for ad_id in ad_ids]] @ embedding
        assert hits.scores == pytest.approx(cosines, abs=self.score_tolerance)
        assert hits.short == (None if len(expected) == wanted.top_k else "filtered")
        return expected

    @pytest.mark.parametrize("filters", FILTERS)
    def test_the_nearest_ads_that_a_request_may_get_are_found(self, ad_index: AdIndex, filters: Filters):
        shares, wanted = [], wanted_of(filters)
        for embedding, one, hits in zip(QUERIES, wanted, ad_index.search(QUERIES, wanted), strict=True):
            expected = self.assert_right(hits, embedding, one)
            shares.append(len(set(hits.ad_ids) & set(expected)) / max(1, len(expected)))
        assert np.mean(shares) >= self.least_recall

    @pytest.mark.parametrize("filters", FILTERS)
    def test_an_exact_search_leaves_out_nothing_that_is_nearer(self, ad_index: AdIndex, filters: Filters):
        wanted = wanted_of(filters)
        for embedding, one, hits in zip(QUERIES, wanted, ad_index.exact_search(QUERIES, wanted), strict=True):
            expected = self.assert_right(hits, embedding, one)
            cosines = VECTORS[[BY_ID[ad_id] for ad_id in expected]] @ embedding
            assert hits.scores == pytest.approx(cosines, abs=2 * self.score_tolerance)

    def test_the_requests_of_a_batch_have_nothing_to_do_with_each_other(self, ad_index: AdIndex):
        wanted = random_wanted(60)
        embeddings = unit_vectors(len(wanted), DIM, seed=12)
        for search in (ad_index.search, ad_index.exact_search):
            for embedding, one, hits in zip(embeddings, wanted, search(embeddings, wanted), strict=True):
                self.assert_right(hits, embedding, one)

    def test_a_request_for_more_than_there_is_gets_all_of_it(self, ad_index: AdIndex):
        wanted = wanted_of(Filters(market="gb"), top_k=1_000)
        for embedding, one, hits in zip(QUERIES, wanted, ad_index.search(QUERIES, wanted), strict=True):
            assert set(hits.ad_ids) == set(self.assert_right(hits, embedding, one))

    def test_no_eligible_ad_is_an_empty_answer(self, ad_index: AdIndex):
        wanted = wanted_of(Filters(min_bid=2.0))
        for hits in (*ad_index.search(QUERIES, wanted), *ad_index.exact_search(QUERIES, wanted)):
            assert (hits.ad_ids, hits.json_ids, len(hits.scores), hits.short) == ([], [], 0, "filtered")
            assert hits.ads.field("title", hits.rows) == []

    def test_no_request_is_no_answer(self, ad_index: AdIndex):
        assert ad_index.search(np.empty((0, DIM), dtype=np.float32), []) == []

    def test_hits_bring_what_their_ads_say(self, ad_index: AdIndex):
        for hits in ad_index.search(QUERIES, wanted_of(Filters())):
            ads = [ADS[BY_ID[ad_id]] for ad_id in hits.ad_ids]
            for name in ("title", "advertiser_id", "category", "market", "devices"):
                assert hits.ads.field(name, hits.rows) == [ad[name] for ad in ads], name
            bids = [None if bid is None else pytest.approx(bid, abs=1e-6) for bid in (ad["bid"] for ad in ads)]
            assert hits.ads.field("bid", hits.rows) == bids

    def test_campaigns_take_part_in_a_share_of_the_requests_and_the_answer_says_so(self, ad_index: AdIndex):
        wanted = [Wanted(200, request_id=f"r-{number}", at=AT) for number in range(100)]
        embeddings = QUERIES[:1].repeat(len(wanted), axis=0)
        answers = ad_index.search(embeddings, wanted)
        shown = [any(ADS[BY_ID[ad_id]]["campaign_id"] == "c6" for ad_id in hits.ad_ids) for hits in answers]
        assert shown == [takes_part({"campaign_id": "c6"}, one, RATES) for one in wanted]
        assert not any(hits.for_others for hits in answers)

    def test_earlier_hits_lose_what_may_not_be_shown_to_another_request(self, ad_index: AdIndex):
        wanted = wanted_of(Filters())
        for hits, one in zip(ad_index.search(QUERIES, wanted), wanted, strict=True):
            scores = dict(zip(hits.ad_ids, hits.scores.tolist(), strict=True))
            assert ad_index.still_eligible(hits, one).ad_ids == hits.ad_ids
            other = replace(one, filters=Filters(min_bid=0.5), query="cheap drill", at=AT + 86_400)
            left = ad_index.still_eligible(hits, other)
            kept = [ad_id for ad_id in hits.ad_ids if ad_id in left.ad_ids]
            assert left.ad_ids == kept
            assert left.scores.tolist() == [scores[ad_id] for ad_id in kept]
            assert all(ADS[BY_ID[ad_id]]["bid"] >= 0.5 for ad_id in kept)
            assert len(ad_index.still_eligible(hits, replace(one, filters=Filters(min_bid=2.0))).rows) == 0

    def test_less_effort_finds_as_many(self, ad_index: AdIndex):
        wanted = [replace(one, effort=0.3) for one in wanted_of(Filters(min_bid=0.2))]
        for embedding, one, hits in zip(QUERIES, wanted, ad_index.search(QUERIES, wanted), strict=True):
            self.assert_right(hits, embedding, one)
        assert not ad_index.narrows(20, 1.0)
        assert not ad_index.narrows(1_000_000, 0.3)  # as much as there is has to be looked at

    def test_several_threads_may_search_at_once(self, ad_index: AdIndex):
        faults: list[BaseException] = []
        embeddings, wanted = QUERIES[:8], wanted_of(Filters(market="us", min_bid=0.3))[:8]

        def search() -> None:
            try:
                for _ in range(2):
                    for embedding, one, hits in zip(
                        embeddings, wanted, ad_index.search(embeddings, wanted), strict=True
                    ):
                        self.assert_right(hits, embedding, one)
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults

    def test_it_says_what_it_holds(self, ad_index: AdIndex):
        stats = ad_index.stats()
        assert stats.ad_count == len(ADS)
        assert stats.memory_bytes >= 0
        assert ad_index.manifest.space.dim == DIM


class Changing(Protocol):
    """An index that is changed, and the way in for changes."""

    @property
    def index(self) -> AdIndex:
        """What is searched."""

    def make(self, change: Change) -> None:
        """Make a change; returns when it is acknowledged, which may be before searches see it."""


class ChangeContract:
    """What is promised to those who change ads."""

    flip_s: ClassVar[float] = 1.0
    """From the acknowledgement of a new status, bid or budget, or of a deletion, until every search obeys it."""
    upsert_s: ClassVar[float] = 5.0
    """And until a new ad is found."""

    @pytest.fixture
    def changing(self) -> Iterator[Changing]:
        """An index without ads, of `SPACE`."""
        raise NotImplementedError

    def put(self, changing: Changing, ad_id: str, row: int, **fields: object) -> None:
        """Write an ad with one of `VECTORS`, and wait until it is found."""
        ad = FeedAd.model_validate({"ad_id": ad_id, "title": f"title of {ad_id}", **fields})
        changing.make(Upsert(ad, VECTORS[row].astype(np.float32)))
        self.wait_for(lambda: found(changing, row)[:1] == [ad_id], self.upsert_s)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Fail where it takes longer."""
        wait_until(condition, seconds)

    def test_an_empty_index_is_searched_like_any_other(self, changing: Changing):
        [hits] = changing.index.search(QUERIES[:1], [Wanted(5)])
        assert (hits.ad_ids, hits.short) == ([], "index_smaller_than_top_k")
        assert changing.index.stats().ad_count == 0

    def test_an_ad_is_found_when_it_was_written_and_not_when_it_was_deleted(self, changing: Changing):
        self.put(changing, "a", 0)
        assert changing.index.stats().ad_count == 1
        self.put(changing, "b", 2)
        changing.make(Delete("a"))
        self.wait_for(lambda: found(changing, 0) == ["b"], self.flip_s)
        [hits] = changing.index.search(QUERIES[:1], [Wanted(5)])
        assert hits.short == "index_smaller_than_top_k"
        self.put(changing, "a", 1)

    def test_an_ad_that_is_written_anew_is_there_once_with_all_that_is_new(self, changing: Changing):
        self.put(changing, "a", 0, category="Toys")
        self.put(changing, "b", 1)
        changing.make(Upsert(FeedAd(ad_id="a", title="new title"), VECTORS[2].astype(np.float32)))
        self.wait_for(lambda: found(changing, 2)[:1] == ["a"], self.upsert_s)
        [hits] = changing.index.search(VECTORS[:1].astype(np.float32), [Wanted(5)])
        assert sorted(hits.ad_ids) == ["a", "b"]
        said = dict(zip(hits.ad_ids, hits.ads.field("title", hits.rows), strict=True))
        assert said == {"a": "new title", "b": "title of b"}
        assert set(hits.ads.field("category", hits.rows)) == {None}

    def test_status_and_bid_are_obeyed(self, changing: Changing):
        self.put(changing, "a", 0, bid=0.5)
        changing.make(PatchAd("a", AdPatch(status="paused")))
        self.wait_for(lambda: found(changing, 0) == [], self.flip_s)
        changing.make(PatchAd("a", AdPatch(status="active", bid=0.1)))
        self.wait_for(lambda: found(changing, 0) == ["a"], self.flip_s)
        self.wait_for(lambda: found(changing, 0, Filters(min_bid=0.3)) == [], self.flip_s)
        changing.make(PatchAd("a", AdPatch(bid=None)))
        self.wait_for(lambda: found(changing, 0, Filters(min_bid=0.0)) == [], self.flip_s)

    def test_a_campaign_speaks_for_its_ads_those_to_come_included(self, changing: Changing):
        self.put(changing, "a", 0, campaign_id="c")
        self.put(changing, "other", 1)
        changing.make(PatchCampaign("c", CampaignPatch(budget="exhausted")))
        self.wait_for(lambda: found(changing, 0) == ["other"], self.flip_s)
        changing.make(Upsert(FeedAd(ad_id="b", title="b", campaign_id="c"), VECTORS[2].astype(np.float32)))
        changing.make(PatchCampaign("c", CampaignPatch(budget="available")))
        self.wait_for(lambda: sorted(found(changing, 0)) == ["a", "b", "other"], self.upsert_s)

    def test_changes_of_an_ad_hold_in_their_order(self, changing: Changing):
        self.put(changing, "a", 0)
        for _ in range(20):
            changing.make(PatchAd("a", AdPatch(status="active")))
            changing.make(PatchAd("a", AdPatch(status="paused")))
        self.wait_for(lambda: found(changing, 0) == [], self.flip_s)
        assert found(changing, 0) == []

    def test_an_id_may_be_any_text(self, changing: Changing):
        for row, ad_id in enumerate(['"quoted"', "a/b?c#d", "Jalapeño ☕ 广告", "a" * 256, "\\", "a\nb", "NULL", "0"]):
            self.put(changing, ad_id, row)
            changing.make(Delete(ad_id))
            self.wait_for(lambda row=row: found(changing, row) == [], self.flip_s)

    def test_earlier_hits_stay_readable_and_lose_what_is_gone(self, changing: Changing):
        self.put(changing, "a", 0)
        self.put(changing, "b", 1)
        wanted = Wanted(5)
        [before] = changing.index.search(VECTORS[:1].astype(np.float32), [wanted])
        changing.make(Delete("a"))
        self.wait_for(lambda: changing.index.still_eligible(before, wanted).ad_ids == ["b"], self.flip_s)
        assert before.ad_ids == ["a", "b"]
        assert before.ads.field("title", before.rows) == ["title of a", "title of b"]

    def test_after_many_changes_the_answers_are_those_of_a_dictionary(self, changing: Changing):
        oracle, chance, embeddings = Oracle(), random.Random(3), queries()
        for _ in range(400):
            change = random_change(chance, oracle, ids=120)
            oracle.make(change)
            changing.make(change)
        self.wait_for(lambda: changing.index.stats().ad_count == len(oracle.ads), self.upsert_s)
        assert_answers(changing.index.exact_search(embeddings, WANTED), oracle, embeddings)


def found(changing: Changing, row: int, filters: Filters | None = None) -> Sequence[str]:
    """Ids of the ads nearest to one of `VECTORS`."""
    [hits] = changing.index.search(VECTORS[row][np.newaxis].astype(np.float32), [Wanted(5, filters or Filters())])
    return hits.ad_ids
