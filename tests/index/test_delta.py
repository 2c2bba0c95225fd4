"""Ads that come after a base: found by id, read by row, scanned while they grow."""

import threading
from typing import Any

import numpy as np
import pytest

from index.ad_lookup import AdLookup
from index.ads import FIELD_NAMES, AdTable, AdTableBuilder
from index.columns import EligibilityColumns
from index.delta import GrowingScan, LiveAds
from index.feed import FeedAd
from index.routing import SegmentKey

FIELDS: list[dict[str, Any]] = [
    {"title": "drill", "bid": 0.0, "devices": ["mobile"], "attrs": {"a": [1]}},
    {"title": "säge", "description": "", "bid": None, "category": "Tools"},
    {"title": "x" * 300, "advertiser_id": "acme", "bid": 2.5},
]


def table_of(ads: list[tuple[str, dict[str, Any]]]) -> AdTable:
    builder = AdTableBuilder()
    for ad_id, fields in ads:
        builder.append(ad_id, fields)
    return builder.build()


def everything(ads: AdTable | LiveAds, rows: np.ndarray) -> list[list[Any]]:
    return [ads.json_ids(rows), *(ads.field(name, rows) for name in FIELD_NAMES)]


@pytest.mark.parametrize("width", [1, 6, 7, 40, 256])
def test_every_ad_is_found_by_its_id_and_no_other_is(width: int):
    ad_ids = [f"{number:x}é".ljust(width, "-")[: max(width, 5)] for number in range(3000)]
    lookup = AdLookup(table_of([(ad_id, FIELDS[0]) for ad_id in ad_ids]).ids)
    assert lookup.find(ad_ids) == list(range(3000))
    others = [ad_ids[5] + "-", ad_ids[5][:-1] + "?", "", '"', "é" * 256, "\0"]
    assert lookup.find([ad_ids[7], *others]) == [7, *[None] * len(others)]


def test_an_empty_table_has_no_ad():
    assert AdLookup(table_of([]).ids).find(["a", "b"]) == [None, None]


def test_ids_of_equal_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("index.ad_lookup.mix", np.zeros_like)
    ad_ids = [f"ad-{number}" for number in range(50)]
    assert AdLookup(table_of([(ad_id, FIELDS[0]) for ad_id in ad_ids]).ids).find([*ad_ids, "ad"]) == [
        *range(50),
        None,
    ]


def test_later_ads_read_as_those_of_the_base_do():
    ads = [(f"ä{number}", FIELDS[number % 3]) for number in range(10)]
    whole, live = table_of(ads), LiveAds(table_of(ads[:4]))
    for number, (ad_id, fields) in enumerate(ads[4:], 4):
        assert live.append(ad_id, fields) == number
    assert len(live) == 10
    for rows in ([], [0, 3], [9, 4], [9, 0, 4, 0, 3]):
        assert everything(live, np.array(rows, np.int64)) == everything(whole, np.array(rows, np.int64))
    assert [ad_id for ad_id, _ in live.later_ads(np.array([5, 4]))] == ["ä5", "ä4"]


def test_a_bid_that_changed_is_read_as_it_is_now():
    live = LiveAds(table_of([("a", FIELDS[2])]))
    live.append("b", FIELDS[2])
    rows = np.array([1, 0])
    live.set_bid(0, None)
    assert live.field("bid", rows) == [2.5, None]
    live.set_bid(1, 7.0)
    assert live.field("bid", rows) == [7.0, None]


@pytest.mark.parametrize("kept", [[], [0], [9], [1, 2, 3, 7, 9], list(range(10))], ids=str)
@pytest.mark.parametrize("later_count", [0, 3])
def test_kept_and_later_ads_become_one_table(kept: list[int], later_count: int):
    ads = [(f"ad-{number}", FIELDS[number % 3] | {"landing_url": "u" * number}) for number in range(13)]
    joined = table_of(ads[:10]).joined(np.array(kept, np.int64), table_of(ads[10 : 10 + later_count]))
    expected = [ads[row] for row in kept] + ads[10 : 10 + later_count]
    rows = np.arange(len(expected))
    assert everything(joined, rows) == everything(table_of(expected), rows)


def test_selected_rows_keep_what_they_say():
    columns = EligibilityColumns()
    for number in range(6):
        columns.append(FeedAd(ad_id=str(number), title="t", campaign_id=f"c{number % 2}", bid=number / 2))
    columns.set_active(4, active=False)
    selected = columns.selected(np.array([1, 4, 5]))
    selected.append(FeedAd(ad_id="new", title="t", campaign_id="c9"))
    assert (columns.count, selected.count) == (6, 4)
    assert selected.rows["bid"][:3].tolist() == [0.5, 2.0, 2.5]
    assert selected.rows["servable"][:4].tolist() == [True, False, True, True]
    assert [selected.campaign_names.name(number) for number in selected.rows["campaign"][:4]] == [
        *("c1", "c0", "c1", "c9")
    ]


def test_what_a_reader_takes_is_whole_while_ads_are_added():
    scan, rows = GrowingScan(SegmentKey("us", "en"), 4), range(5000)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            taken, vectors = scan.taken()
            assert taken.tolist() == list(rows[: len(taken)])
            assert (vectors[:, 0] == taken).all()
            seen.append(len(taken))

    reader = threading.Thread(target=read)
    reader.start()
    for row in rows:
        assert scan.append(row, np.full(4, row, np.float32)) == row
    done.set()
    reader.join()
    assert len(scan) == len(scan.taken()[0]) == 5000
    assert seen == sorted(seen)
