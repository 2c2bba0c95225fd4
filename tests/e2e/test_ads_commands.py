"""`hlm ads` against a real server: what a person who runs a shop does in a day."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Server
from tests.e2e.live_shop import Shop

pytestmark = pytest.mark.e2e


@pytest.fixture
def shop(start: Callable[..., Server], tmp_path: Path) -> Shop:
    return Shop(start, tmp_path / "shop.db")


def test_ads_are_written_paused_and_followed_by_command(shop: Shop):
    assert shop.command("put", "-", given='{"ad_id": "new", "title": "inflatable hippopotamus"}\n').startswith(
        "1 applied"
    )
    assert shop.ads("inflatable hippopotamus")[0] == "new"
    shop.command("pause", "new")
    assert "new" not in shop.ads("inflatable hippopotamus")
    assert "there is no ad 'nobody'" in shop.command("pause", "nobody", code=1)
    changes = [json.loads(line) for line in shop.command("tail", "--since", "0", "--no-follow", "--json").splitlines()]
    assert [(change["ad_id"], change["ad"]["status"]) for change in changes] == [("new", "paused")]


def test_to_write_the_whole_feed_again_leaves_the_index_as_it_is(shop: Shop, sample_feed: Path):
    """What the record took from the index says the same as the feed that the index was built from."""
    before = shop.ads("cordless drill")
    answer = json.loads(shop.command("put", sample_feed, "--json"))
    assert (answer["failed_count"], answer["applied"]) == (0, 3_000)
    assert shop.live["later_ads"] == 0
    assert shop.live["gone_share"] == 0
    assert shop.ads("cordless drill") == before
