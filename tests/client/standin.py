"""A small real HTTP server that speaks the service's wire format, with answers that a test chooses."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    status: int
    body: bytes
    media_type: str = "application/json"


Respond = Callable[[dict[str, Any]], Reply]


def answer(
    ad_ids: list[str], *, top_k: int = 10, release: str = "r1", falling: float = 0.001, **fields: list[Any]
) -> Reply:
    """A 200 with these ads, each score `falling` below the one before; `fields` has further values for each ad."""
    ads = [
        {"ad_id": ad_id, "score": 1 - rank * falling, **{name: values[rank] for name, values in fields.items()}}
        for rank, ad_id in enumerate(ad_ids)
    ]
    complete = len(ads) == top_k
    document = {
        "request_id": "q-1",
        "release": release,
        "model_version": "minilm-1",
        "index_version": "demo-1",
        "ads": ads,
        "coverage": {"complete": complete, "reason": None if complete else "index_smaller_than_top_k"},
        "cached": False,
        "timings_ms": {"tokenize": 0.05, "queue": 0.1, "encode": 1.125, "search": 0.4, "total": 1.75},
    }
    return Reply(200, json.dumps(document).encode())


def problem(status: int, name: str, detail: str) -> Reply:
    """An RFC 9457 problem document."""
    document = {"type": name, "title": name.capitalize(), "status": status, "detail": detail}
    return Reply(status, json.dumps(document).encode(), "application/problem+json")


class StandIn(NamedTuple):
    url: str
    requests: list[dict[str, Any]]
    """Bodies of `POST /retrieve` in the order of arrival."""


@contextlib.contextmanager
def serve(respond: Respond) -> Iterator[StandIn]:
    """Answer `POST /retrieve`, and other methods for any path, on a free port, until the block ends."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body leave in one packet

        def do_POST(self) -> None:
            assert self.path == "/retrieve"
            assert self.headers["Content-Type"] == "application/json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            self._send(respond(body))

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self._send(respond({}))

        do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the names are the library's

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.media_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield StandIn(f"http://127.0.0.1:{server.server_port}", requests)
        finally:
            server.shutdown()
            thread.join()
