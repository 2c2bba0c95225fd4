"""What the service is compared with answers as it does: the same files, without anything of this project."""

import os
import socket
import sys
from pathlib import Path

from benchmarks.peers.peers import Peer, running
from benchmarks.peers.pipeline import TOP_K, Pipeline
from index.filters import Wanted
from index.load import load_index
from service.encoder import Encoder

QUERY = "cordless drill 18v"
TELLER = """
import http.server, sys
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
    core = min(os.sched_getaffinity(0))
    peer = Peer("teller", "", sys.prefix, ("-c", TELLER, "{port}"))
    with running(peer, port, core, {}, 100) as server:
        assert server.rss_mib() > 1
        assert server.cpu_s() > 0
        assert server.ready_s > 0
    assert server.process.returncode == -9
