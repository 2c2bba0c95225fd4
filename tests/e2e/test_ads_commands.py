"""`hlm ads` against a real server: what a person who runs a shop does in a day."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Server

pytestmark = pytest.mark.e2e

TOKEN = "a-token-of-more-than-sixteen-characters"


class Shop:
    """A server with a record, and the commands that change its ads."""

    def __init__(self, start: Callable[..., Server], record: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._env = os.environ | {"HLM_ADMIN_TOKEN": TOKEN, "HLM_ADMIN_URL": f"http://127.0.0.1:{port}"}
        self.server = start("--record", record, HLM_ADMIN_TOKEN=TOKEN, HLM_SERVER__ADMIN_PORT=str(port))

    def ads(self, *arguments: str | Path, given: str = "", code: int = 0) -> str:
        command = [sys.executable, "hlm.py", "ads", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT, env=self._env, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    def found(self, query: str) -> list[str]:
        return [ad["ad_id"] for ad in self.server.retrieve(query).json()["ads"]]

    @property
    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.client.get("/info").json()["release"]["live"]
        return found


@pytest.fixture
def shop(start: Callable[..., Server], tmp_path: Path) -> Shop:
    return Shop(start, tmp_path / "shop.db")


def test_ads_are_written_paused_and_followed_by_command(shop: Shop):
    assert shop.ads("put", "-", given='{"ad_id": "new", "title": "inflatable hippopotamus"}\n').startswith("1 applied")
    assert shop.found("inflatable hippopotamus")[0] == "new"
    shop.ads("pause", "new")
    assert "new" not in shop.found("inflatable hippopotamus")
    assert "answered 404 unknown_ad" in shop.ads("pause", "nobody", code=1)
    changes = [json.loads(line) for line in shop.ads("tail", "--since", "0", "--no-follow", "--json").splitlines()]
    assert [(change["ad_id"], change["ad"]["status"]) for change in changes] == [("new", "paused")]


def test_to_write_the_whole_feed_again_leaves_the_index_as_it_is(shop: Shop, sample_feed: Path):
    """What the record took from the index says the same as the feed that the index was built from."""
    before = shop.found("cordless drill")
    answer = json.loads(shop.ads("put", sample_feed, "--json"))
    assert (answer["failed_count"], answer["applied"]) == (0, 3_000)
    assert shop.live["later_ads"] == 0
    assert shop.live["gone_share"] == 0
    assert shop.found("cordless drill") == before
