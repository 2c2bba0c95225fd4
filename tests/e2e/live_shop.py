"""A real server with a record, its admin listener, and the commands that change its ads."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import ROOT, Server
from tests.waiting import wait_until

TOKEN = "a-token-of-more-than-sixteen-characters"


class Shop:
    """What a person who runs a shop has before him."""

    def __init__(self, start: Callable[..., Server], record: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server = start("--record", record, HLM_ADMIN_TOKEN=TOKEN, HLM_SERVER__ADMIN_PORT=str(port))
        self.admin_url = f"http://127.0.0.1:{port}"
        wait_until(lambda: self.server.client.get("/health/ready").status_code == 200)

    def change(self, method: str, path: str, content: str = "") -> dict[str, Any]:
        """Over HTTP; gives the answer."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.request(method, self.admin_url + path, content=content, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def put(self, *ads: dict[str, Any]) -> dict[str, Any]:
        return self.change("PUT", "/ads", "\n".join(map(json.dumps, ads)))

    def command(self, *arguments: str | Path, given: str = "", code: int = 0) -> str:
        """`hlm ads …`; gives what it prints, with its complaints where it is to fail."""
        command = [sys.executable, "hlm.py", "ads", *map(str, arguments)]
        environment = os.environ | {"HLM_ADMIN_TOKEN": TOKEN, "HLM_ADMIN_URL": self.admin_url}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def ads(self, query: str, **fields: Any) -> list[str]:
        """Ids of what is found."""
        return [ad["ad_id"] for ad in self.server.retrieve(query, **fields).json()["ads"]]

    @property
    def live(self) -> dict[str, float]:
        found: dict[str, float] = self.server.client.get("/info").json()["release"]["live"]
        return found
