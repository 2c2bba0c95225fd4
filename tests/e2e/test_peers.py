"""What the service is compared with answers as it does: the same files, without anything of this project."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.peers.peers import OURS, Peer
from benchmarks.peers.pipeline import TOP_K, Pipeline
from benchmarks.peers.report import BOTH_CORES, ONE_CORE
from benchmarks.peers.running import Limits, Seat, is_alive, running
from index.filters import Wanted
from index.load import load_index
from service.encoder import Encoder
from tests.e2e.conftest import ROOT

QUERY = "cordless drill 18v"
TELLER = """
import http.server, subprocess, sys
subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_the_pipeline_of_the_peers_finds_what_the_service_finds(encoder: Path, graph_index: Path):
    [found] = Pipeline(encoder, graph_index)([QUERY])
    own, _ = Encoder.load(encoder)
    [hits] = load_index(graph_index).search(own.encode([own.tokenize(QUERY)]), [Wanted(TOP_K)])
    assert len(found) == TOP_K
    assert len(set(found) & set(hits.ad_ids)) >= 0.95 * TOP_K
    assert found[0] == hits.ad_ids[0]


def test_a_peer_is_started_measured_and_ended():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seat = Seat("one", frozenset({min(os.sched_getaffinity(0))}), frozenset())
    peer = Peer("teller", "numpy", "", sys.prefix, ("-c", TELLER, "{port}"))
    with running(peer, port, seat, {}, Limits(100, 1)) as server:
        assert server.rss_mib() > 1
        assert server.cpu_s() > 0
        assert server.ready_s > 0
        [child] = set(server.pids()) - {server.process.pid}
    assert server.process.returncode == -9
    assert not is_alive(child)


def test_a_version_is_that_of_the_environment():
    assert Peer("teller", "numpy", "", sys.prefix, ()).version() == f"numpy {version('numpy')}"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for its clients")
def test_the_comparison_in_small(encoder: Path, graph_index: Path, tmp_path: Path):
    """With the two that need no environment of their own; a second time nothing is left to measure."""
    command = [sys.executable, "-m", "benchmarks.peers", "--encoder", str(encoder), "--index", str(graph_index)]
    command += ["--rounds", "1", "--seconds", "0.2", "--results", str(tmp_path / "peers.jsonl")]
    command += ["--peers", OURS, "FastAPI + ST"]
    lines = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        for _ in range(2)
    ]
    found = json.loads(lines[0])
    assert found[ONE_CORE].keys() == found[BOTH_CORES].keys() == found["checks"].keys() == {OURS, "FastAPI + ST"}
    assert found["checks"][OURS]["poison"]
    assert found["checks"][OURS]["sigterm"]
    assert found["bars"]["throughput"] > 0
    assert found[ONE_CORE][OURS]["bare_p50_ms_1"] > 0
    assert lines[1] == lines[0]
