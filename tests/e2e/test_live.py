"""Ads that are changed while a real server answers, killed at its worst moments."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.live import MERGE_LATER_ADS
from index.snapshots import Snapshots
from tests.e2e.conftest import Server
from tests.e2e.live_shop import Shop
from tests.index.support import unit_vectors
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def shop(start: Callable[..., Server], tmp_path: Path) -> Callable[[], Shop]:
    return lambda: Shop(start, tmp_path / "shop.db")


def test_what_was_answered_holds_at_once_and_after_a_kill(shop: Callable[[], Shop]):
    first = shop()
    assert first.put({"ad_id": "new", "title": "inflatable hippopotamus"}, {"ad_id": "bad"})["applied"] == 1
    assert first.ads("inflatable hippopotamus")[0] == "new"
    best, second = first.ads("cordless drill")[:2]
    first.change("PATCH", f"/ads/{best}", '{"status": "paused"}')
    first.change("DELETE", f"/ads/{second}")
    first.put({"ad_id": "new", "title": "inflatable hippopotamus", "campaign_id": "c"})
    first.change("PATCH", "/campaigns/c", '{"budget": "exhausted"}')

    def holds(shop: Shop) -> None:
        assert not {best, second} & set(shop.ads("cordless drill"))
        assert "new" not in shop.ads("inflatable hippopotamus")

    holds(first)
    assert first.server.stop(signal.SIGKILL) == -signal.SIGKILL
    again = shop()
    holds(again)
    again.change("PATCH", "/campaigns/c", '{"budget": "available"}')
    again.change("PATCH", f"/ads/{best}", '{"status": "active"}')
    assert again.ads("inflatable hippopotamus")[0] == "new"
    assert again.ads("cordless drill")[0] == best
    assert again.server.stop() == 0


def test_many_new_ads_are_merged_into_the_graphs_while_requests_are_answered(shop: Callable[[], Shop], tmp_path: Path):
    first = shop()
    vectors = np.round(unit_vectors(MERGE_LATER_ADS, 384, seed=3), 6).tolist()
    new = [{"ad_id": f"n{i}", "title": f"n {i}", "market": "us", "embedding": v} for i, v in enumerate(vectors)]
    assert first.put(*new)["applied"] == MERGE_LATER_ADS
    assert first.live["later_ads"] == MERGE_LATER_ADS
    best = first.ads("cordless drill")

    def merged() -> bool:
        assert first.ads("cordless drill") == best
        return first.live["snapshot_sequence"] > 0

    wait_until(merged, patience_s=300)  # at the least priority, beside whatever else this machine does
    assert first.live["later_ads"] == 0
    wait_until(lambda: first.server.metric('hlm_index_merges_total{result="merged"}') == 1)  # counted once all is done
    assert len(Snapshots(tmp_path / "shop.db").newest_first()) == 1
    first.put({"ad_id": "newest", "title": "inflatable hippopotamus"})
    assert first.ads("inflatable hippopotamus")[0] == "newest"
    assert first.server.stop(signal.SIGKILL) == -signal.SIGKILL
    again = shop()
    assert again.live["snapshot_sequence"] > 0
    assert again.live["later_ads"] == 1
    assert again.ads("inflatable hippopotamus")[0] == "newest"
    assert again.server.stop() == 0


def test_a_record_of_another_index_is_refused_in_one_sentence(
    shop: Callable[[], Shop], encoder: Path, three_shoes: Path, tmp_path: Path
):
    assert shop().server.stop() == 0
    release = ("--name", "other", "--encoder", encoder, "--index", three_shoes, "--record", tmp_path / "shop.db")
    with pytest.raises(RuntimeError, match=r"error: .*shop\.db: began with the index"):
        Server(*release)
