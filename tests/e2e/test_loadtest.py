"""A load test of a real server to which something happens meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loadtest.result import read_result
from tests.e2e.conftest import CACHE, ROOT, Server, hlm
from tests.e2e.live_shop import TOKEN, Shop
from tests.loadtest.running import loadtest

pytestmark = pytest.mark.e2e


@pytest.fixture
def other_encoder() -> Path:
    out = CACHE / "encoders" / "minilm-fp32"
    hlm("export", "demo", "--out", out, "--precision", "fp32")
    return out


def test_the_example_of_a_swap_changes_the_encoder_under_load_and_fails_no_request(
    start: Callable[..., Server],
    sample_index: Path,
    other_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    record = tmp_path / "shop.db"
    shop = Shop(start, record)
    scenario = yaml.safe_load((ROOT / "config" / "loadtest" / "swap.yaml").read_text())
    scenario["traffic"]["timeout_ms"] = 10_000  # which only a hang would miss
    scenario["loads"] = [{"name": "steady", "rate": 20, "seconds": 6}]
    bids, swap, _ = scenario["events"]
    scenario["events"] = [bids | {"at_s": 0.5}, swap | {"at_s": 1}]  # when it is done, to roll back, nobody knows
    bids["do"] |= {"seconds": 5, "admin_url": shop.admin_url}
    places = {"encoder": other_encoder, "index": sample_index, "record": record}
    swap["do"] |= {"admin_url": shop.admin_url, **{name: str(place) for name, place in places.items()}}
    file, out, report = (tmp_path / name for name in ("swap.yaml", "out.json", "out.html"))
    file.write_text(yaml.safe_dump(scenario))

    url, written = shop.server.url, ("--out", str(out), "--report", str(report))
    loadtest("scenario", str(file), "--url", url, "--slo", "errors=0%", *written)

    events = {event.name: event for event in read_result(out).events}
    assert (events["swap"].outcome, events["10 bids a second"].outcome) == ("served", "50 of 50 bids changed")
    assert shop.server.client.get("/info").json()["release"]["name"] == "next"
    row = f'{events["swap"].at_s:.1f}</td><td class="text">swap</td><td class="text">served</td>'
    assert row in report.read_text()
