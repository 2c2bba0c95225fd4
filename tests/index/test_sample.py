"""How much of a segment passes, counted anew when it has to be."""

import numpy as np
import pytest

from index.columns import EligibilityColumns
from index.feed import FeedAd
from index.filters import Filters, Wanted, rule_for
from index.sample import Sample
from index.targeting import Campaign

COUNT = 1_000
"""All of them are in the sample, so a share is no estimate."""


@pytest.fixture
def columns() -> EligibilityColumns:
    columns = EligibilityColumns()
    for number in range(COUNT):
        columns.append(
            FeedAd(
                ad_id=f"ad-{number}",
                title="drill",
                campaign_id="spring" if number < 400 else None,
                advertiser_id="acme" if number >= 900 else None,
            )
        )
    return columns


def share(sample: Sample, columns: EligibilityColumns, **filters: object) -> float:
    return sample.share(rule_for(columns, Wanted(10, Filters(**filters))))  # type: ignore[arg-type]


def test_what_a_request_bars_is_counted_for_each(columns: EligibilityColumns):
    sample = Sample(np.arange(COUNT))
    assert share(sample, columns) == 1
    assert share(sample, columns, exclude_advertisers=frozenset({"acme"})) == 0.9
    assert share(sample, columns, min_bid=1.0) == 0
    assert share(sample, columns) == 1


def test_paused_ads_count_once_they_are_more_than_a_hundredth(columns: EligibilityColumns):
    sample = Sample(np.arange(COUNT))
    assert share(sample, columns) == 1
    for row in range(10):
        columns.set_active(row, active=False)
    assert share(sample, columns) == 1
    columns.set_active(10, active=False)
    assert share(sample, columns) == 0.989


def test_one_change_of_a_campaign_changes_all_its_ads(columns: EligibilityColumns):
    sample = Sample(np.arange(COUNT))
    assert share(sample, columns) == 1
    columns.set_campaign(Campaign(campaign_id="spring", budget="exhausted"))
    assert share(sample, columns) == 0.6
