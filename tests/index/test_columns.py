"""Eligibility columns and schedules: what is saved comes back, and changes in place are seen."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from artifacts.store import ArtifactError
from index.ad_schedule import ALWAYS, DAYS, Schedule, Schedules, Window, schedule_of
from index.columns import EligibilityColumns
from index.feed import FeedAd
from index.filters import Filters, Wanted, rule_for
from index.targeting import Campaign

MONDAY = datetime(2026, 11, 23, 15, 30, tzinfo=UTC).timestamp()


def ad(number: int, **fields: object) -> FeedAd:
    return FeedAd.model_validate({"ad_id": f"ad-{number}", "title": "drill", **fields})


def columns_of(*ads: FeedAd) -> EligibilityColumns:
    columns = EligibilityColumns()
    for one in ads:
        columns.append(one)
    return columns


def passing(columns: EligibilityColumns, wanted: Wanted) -> list[int]:
    rows = np.arange(columns.count)
    return rows[rule_for(columns, wanted).passes(rows)].tolist()


@pytest.mark.parametrize(
    ("offset_minutes", "is_open"), [(0, True), (29, True), (30, False), (-451, False), (-450, True), (24 * 60, False)]
)
def test_hours_are_those_of_the_searchers_week(offset_minutes: int, is_open: bool):
    schedules = Schedules()
    number = schedules.number_of(schedule_of(None, None, [Window(days=["mon"], from_hour=8, to_hour=16)]))
    assert bool(schedules.open(MONDAY, offset_minutes)[number]) is is_open
    assert schedules.open(MONDAY, offset_minutes)[0]


def test_an_ad_is_shown_from_its_start_on_and_not_at_its_end():
    schedules = Schedules()
    start, end = datetime.fromtimestamp(MONDAY, UTC), datetime.fromtimestamp(MONDAY + 60, UTC)
    number = schedules.number_of(schedule_of(start, end, None))
    shown = [bool(schedules.open(MONDAY + late, 0)[number]) for late in (-0.5, 0, 59.5, 60)]
    assert shown == [False, True, True, False]
    assert Schedules.of(schedules.rows()).rows() == schedules.rows()
    assert schedule_of(None, None, []) == ALWAYS


def test_a_campaign_hides_its_ads_until_it_has_budget_again_but_shows_no_paused_one():
    columns = columns_of(ad(0, campaign_id="c"), ad(1, campaign_id="c", status="paused"), ad(2))
    columns.set_campaign(Campaign(campaign_id="c", budget="exhausted"))
    columns.append(ad(3, campaign_id="c"))
    assert passing(columns, Wanted(1)) == [2]
    columns.set_campaign(Campaign(campaign_id="c"))
    assert passing(columns, Wanted(1)) == [0, 2, 3]
    columns.set_active(1, active=True)
    assert passing(columns, Wanted(1)) == [0, 1, 2, 3]


def test_a_device_that_no_ad_names_gets_the_ads_for_all():
    columns = columns_of(ad(0), ad(1, devices=["mobile"]), ad(2, devices=[]))
    assert passing(columns, Wanted(1, Filters(device="watch"))) == [0, 2]
    assert passing(columns, Wanted(1, Filters(device="Mobile"))) == [0, 1, 2]


def test_devices_beyond_those_with_a_bit_get_none_of_each_others_ads():
    columns = columns_of(*(ad(number, devices=[f"device-{number}"]) for number in range(40)), ad(40))
    for number in range(40):
        shown = passing(columns, Wanted(1, Filters(device=f"device-{number}")))
        assert shown == ([number, 40] if number < 30 else [40])  # to miss an ad is better than to show a wrong one


def test_many_schedules_are_each_kept_to():
    chance = np.random.default_rng(0)
    starts, lasts, days = chance.integers(0, 1000, 500), chance.integers(1, 1000, 500), chance.integers(0, 7, 500)
    schedules = Schedules()
    for start, last, day in zip(starts.tolist(), lasts.tolist(), days.tolist(), strict=True):
        window = Window(days=[DAYS[day]], from_hour=8, to_hour=16)
        hours = schedule_of(None, None, [window]).hours
        schedules.number_of(Schedule(MONDAY + start - 500, MONDAY + start - 500 + last, hours))
    for at in (MONDAY, MONDAY + 499, MONDAY - 500, MONDAY + 86_400):
        found = schedules.open(at, 0)
        expected = [
            one.starts_at <= at < one.ends_at
            and bool(one.hours >> int(at // 86_400 + 3) % 7 * 24 + int(at // 3600) % 24 & 1)
            for one in schedules
        ]
        assert found.tolist() == expected
    assert len(schedules) > 300


def test_a_rate_that_is_nearly_one_is_one():
    columns = columns_of(ad(0, campaign_id="c"))
    for rate in (1 - 1e-12, 0.5, 1 - 1e-12, 1.0):
        columns.set_campaign(Campaign(campaign_id="c", pass_through_rate=rate))
        assert columns.has_partial_campaigns == (rate == 0.5)


def test_selected_rows_take_along_only_what_they_and_campaigns_refer_to():
    """Else each change of a schedule or of negative keywords would stay in all snapshots to come."""
    hours = [{"days": ["mon"], "from_hour": 0, "to_hour": 12}]
    columns = columns_of(ad(0, negative_keywords=["old"]), ad(1, negative_keywords=["new"], campaign_id="c"))
    for keyword in ("first", "second", "cheap"):
        columns.set_campaign(
            Campaign.model_validate({"campaign_id": "c", "negative_keywords": [keyword], "hours": hours})
        )
    selected = columns.selected(np.array([1]))
    assert sorted(selected.negatives.texts()) == [[], ['"cheap"'], ['"new"']]
    assert len(selected.schedules) == 2
    for query, shown in (("old", [0]), ("new", []), ("cheap", []), ("second", [0])):
        assert passing(selected, Wanted(1, query=query, at=MONDAY - 6 * 3600)) == shown
    assert passing(selected, Wanted(1, at=MONDAY)) == []
    assert passing(columns, Wanted(1, query="second", at=MONDAY - 6 * 3600)) == [0, 1]


def test_a_changed_bid_is_seen_by_the_next_request():
    columns = columns_of(ad(0, bid=0.5), ad(1))
    columns.set_bid(0, None)
    columns.set_bid(1, 0.7)
    assert passing(columns, Wanted(1, Filters(min_bid=0.6))) == [1]


def test_saved_columns_come_back(tmp_path: Path):
    columns = columns_of(
        ad(0, campaign_id="c", category="Toys > Puzzles", devices=["tv"], bid=0.5, negative_keywords=["cheap"]),
        ad(1, advertiser_id="a", hours=[{"days": ["mon"], "from_hour": 0, "to_hour": 1}]),
        ad(2),
    )
    columns.set_campaign(Campaign(campaign_id="c", pass_through_rate=0.5))
    columns.save(tmp_path)
    loaded = EligibilityColumns.load(tmp_path, 3)
    assert loaded.has_partial_campaigns
    for wanted in (
        Wanted(1, at=MONDAY),
        Wanted(1, query="cheap drill", at=MONDAY),
        Wanted(1, Filters(device="tv", exclude_categories=frozenset({"toys"})), at=MONDAY),
        Wanted(1, Filters(exclude_advertisers=frozenset({"a"}), min_bid=0.1), at=MONDAY - 15 * 3600),
    ):
        assert passing(loaded, wanted) == passing(columns, wanted)
    with pytest.raises(ArtifactError, match="columns of 3 ads where 4 are expected"):
        EligibilityColumns.load(tmp_path, 4)


def test_a_campaign_that_changes_while_a_rule_is_in_use_breaks_nothing():
    columns = columns_of(ad(0, campaign_id="c", hours=[{"days": ["mon"], "from_hour": 0, "to_hour": 24}]))
    for number in range(1, 4):
        columns.append(ad(number, hours=[{"days": ["tue"], "from_hour": 0, "to_hour": 24}]))
    rule = rule_for(columns, Wanted(1, at=MONDAY))
    columns.set_campaign(Campaign.model_validate({"campaign_id": "c", "ends_at": "2026-01-01T00:00:00Z"}))
    for rows in (np.arange(1), np.arange(4)):  # fewer than there are campaigns, and more
        assert len(rule.passes(rows)) == len(rows)
    assert passing(columns, Wanted(1, at=MONDAY)) == []


def test_a_campaigns_schedule_and_keywords_count_for_few_ads_and_for_many():
    columns = columns_of(ad(0, campaign_id="open"), *(ad(number, campaign_id="shut") for number in range(1, 5)), ad(5))
    columns.set_campaign(Campaign.model_validate({"campaign_id": "shut", "ends_at": "2026-01-01T00:00:00Z"}))
    columns.set_campaign(Campaign(campaign_id="open", negative_keywords=["free"]))
    for query, left in (("free drill", {5}), ("drill", {0, 5})):
        rule = rule_for(columns, Wanted(1, query=query, at=MONDAY))
        assert set(np.flatnonzero(rule.passes(slice(0, 6)))) == left
        assert {row for row in range(6) if rule.passes(np.array([row]))[0]} == left


def test_a_category_bars_all_below_it_those_too_that_came_later_or_were_saved(tmp_path: Path):
    categories = ("Toys > Puzzles > Wooden", "Toys", "Toys & Games", "toys > puzzles", "Puzzles")
    columns = columns_of(*(ad(number, category=category) for number, category in enumerate(categories)), ad(5))
    columns.save(tmp_path)
    for kept in (columns, EligibilityColumns.load(tmp_path, row_count=6)):
        later = kept.append(ad(6, category="TOYS > Puzzles > Paper"))
        left = passing(kept, Wanted(1, Filters(exclude_categories=frozenset({"Toys > PUZZLES", "Games"}))))
        assert left == [1, 2, 4, 5]
        assert later == 6
