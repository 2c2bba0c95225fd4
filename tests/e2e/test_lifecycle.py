"""Starting, refusing to start, deadlines, disconnects, overload, callers and draining, on a real server."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ROOT, Server, hlm
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

Start = Callable[..., Server]
ONE_BY_ONE = {"HLM_BATCHING__WORKERS": "1", "HLM_BATCHING__MAX_BATCH_SIZE": "1", "HLM_CACHE__EMBEDDING_BYTES": "0"}
"""As much of a queue as possible: one query a batch, each encoded for itself."""


def long_query(number: int) -> str:
    """Like no other, with as many tokens as a query may have, so that a few of them take tens of milliseconds."""
    return f"{number} " + "cordless drill " * 33


def ask(query: str, caller: str = "burst", **fields: object) -> bytes:
    body = json.dumps({"query": query, "timeout_ms": 10_000, **fields}).encode()
    lines = f"Connection: close\r\nX-HLM-Caller: {caller}\r\nContent-Length: {len(body)}"
    return f"POST /retrieve HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode() + body


def ask_slowly(count: int, caller: str = "burst", **fields: object) -> list[bytes]:
    return [ask(long_query(number), caller, **fields) for number in range(count)]


class Burst:
    """Requests that are all there, in this order, before the server reads the first: it stands still meanwhile."""

    def __init__(self, server: Server, requests: list[bytes], leaving: int = 0) -> None:
        """Send them, each on a connection of its own; the last `leaving` clients go away at once."""
        server.process.send_signal(signal.SIGSTOP)
        connections = [connect(server) for _ in requests]  # the kernel accepts them
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request)
        self._connections = connections[: len(connections) - leaving]
        for connection in connections[len(self._connections) :]:
            connection.close()
        server.process.send_signal(signal.SIGCONT)

    def answers(self) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
        """Status, headers and document of each answer, as they were sent."""
        found = []
        for connection in self._connections:
            with connection:
                raw = b"".join(iter(lambda: connection.recv(65_536), b""))  # noqa: B023 - called within the iteration
            head, _, body = raw.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            found.append((int(status.split()[1]), headers, json.loads(body)))
        return found


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_an_idle_server_tries_and_answers_504_when_the_budget_is_spent(start: Start):
    server = start(**ONE_BY_ONE)
    answer = server.retrieve(long_query(1), timeout_ms=1, request_id="r-1")
    assert (answer.status_code, answer.json()["type"]) == (504, "deadline_exceeded")
    assert answer.json()["request_id"] == "r-1"
    assert server.metric('hlm_requests_total{outcome="deadline_exceeded"}') == 1
    assert server.retrieve(long_query(2)).status_code == 200


def test_what_cannot_be_in_time_is_refused_at_once_unencoded_with_the_wait_that_was_predicted(start: Start):
    server = start(**ONE_BY_ONE)
    late = ask("drill", timeout_ms=1, request_id="late")
    *others, (status, headers, problem) = Burst(server, [*ask_slowly(60), late]).answers()
    assert {status for status, _, _ in others} == {200}
    assert (status, problem["type"], problem["request_id"]) == (503, "overloaded", "late")
    assert int(headers["retry-after"]) >= 1
    assert int(headers["x-hlm-predicted-wait-ms"]) > 1
    assert server.metric('hlm_requests_total{outcome="overloaded"}') == 1
    assert server.metric("hlm_batch_size_count") == 60


def test_a_caller_is_refused_at_once_when_its_places_in_the_queue_are_taken(start: Start):
    server = start(**ONE_BY_ONE, HLM_BATCHING__MAX_QUEUE_SIZE="2")
    answers = Burst(server, [ask(long_query(number), request_id=f"r-{number}") for number in range(60)]).answers()
    named = [(number, document) for number, (_, _, document) in enumerate(answers) if "request_id" in document]
    assert all(document["request_id"] == f"r-{number}" for number, document in named)
    refused = [(headers, problem) for status, headers, problem in answers if status == 503]
    assert "request_id" in refused[0][1]  # those that follow at once are refused unread
    assert {status for status, _, _ in answers} == {200, 503}
    assert {problem["type"] for _, problem in refused} == {"overloaded"}
    assert all(int(headers["retry-after"]) >= 1 for headers, _ in refused)
    assert server.metric('hlm_requests_total{outcome="overloaded"}') == len(refused)


def test_queries_on_connections_that_come_together_share_batches(start: Start):
    server = start(HLM_BATCHING__WORKERS="1")
    answers = Burst(server, [ask(f"drill {number}") for number in range(64)]).answers()
    assert {status for status, _, _ in answers} == {200}
    assert server.metric("hlm_batch_size_count") <= 12  # of 8 queries at most


def test_a_caller_does_not_wait_behind_what_another_has_queued(start: Start):
    answers = Burst(start(**ONE_BY_ONE), [*ask_slowly(100, "flood"), ask(long_query(0), "light")]).answers()
    assert {status for status, _, _ in answers} == {200}
    *flood, light = [document["timings_ms"]["queue"] for _, _, document in answers]
    assert light < sorted(flood)[20]


def test_under_pressure_answers_get_cheaper_and_say_so(start: Start, graph_index: Path):
    steps = {"HLM_OVERLOAD__STEPS": '[{"name": "smaller_ef_search", "at_pressure": 0.00001}]'}
    server = start("--index", graph_index, **ONE_BY_ONE | steps)
    answers = Burst(server, ask_slowly(40, top_k=10)).answers()
    first, *others = [document["coverage"] for _, _, document in answers]
    assert first == {"complete": True, "reason": None, "degraded": []}  # it came to an idle service
    assert others == [{"complete": False, "reason": "degraded", "degraded": ["smaller_ef_search"]}] * 39
    assert server.metric('hlm_degraded_answers_total{step="smaller_ef_search"}') == 39


def test_under_more_pressure_only_what_was_asked_before_is_answered(start: Start):
    steps = '[{"name": "cached_only", "at_pressure": 0.00001}]'
    server = start(**ONE_BY_ONE | {"HLM_CACHE__EMBEDDING_BYTES": "1000000"}, HLM_OVERLOAD__STEPS=steps)
    assert server.retrieve("drill").json()["cached"] is False
    first, *unknown, known = Burst(server, [*ask_slowly(40), ask("drill")]).answers()
    assert first[0] == 200  # as above
    assert (known[0], known[2]["cached"]) == (200, True)
    assert {status for status, _, _ in unknown} == {503}
    assert all("asked before" in problem["detail"] for _, _, problem in unknown)


def test_a_client_that_goes_away_is_dropped_unencoded(start: Start):
    server = start(**ONE_BY_ONE)
    staying = Burst(server, ask_slowly(85), leaving=5)
    assert {status for status, _, _ in staying.answers()} == {200}
    wait_until(lambda: server.metric('hlm_requests_total{outcome="cancelled"}') == 5)
    assert server.metric("hlm_batch_size_count") == 80


def test_sigterm_drains_without_losing_a_request(start: Start):
    server = start(HLM_SERVER__DRAIN_GRACE_MS="2000", **ONE_BY_ONE)
    early = Burst(server, ask_slowly(60))
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.client.get("/health/ready").status_code == 503)
    assert server.client.get("/health/live").status_code == 200
    late: list[httpx.Response] = []
    with contextlib.suppress(httpx.ConnectError):  # until the listener closes, at the end of the grace time
        while True:
            late.append(server.retrieve("drill"))
    assert len(late) > 20
    assert {(answer.status_code, answer.headers["connection"]) for answer in late} == {(200, "close")}
    assert {status for status, _, _ in early.answers()} == {200}
    server.process.communicate(timeout=30)
    assert server.process.returncode == 0


def test_a_signal_while_the_release_loads_ends_it_cleanly(encoder: Path, sample_index: Path):
    code = (
        "import signal, os; from service.loading import ReleaseLoader; load = ReleaseLoader.load\n"
        "def slow(*args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return load(*args)\n"
        "ReleaseLoader.load = slow; import sys, hlm; sys.argv[0] = 'hlm'; hlm.main()"
    )
    options = ["serve", "--name=x", f"--encoder={encoder}", f"--index={sample_index}", "--port=0"]
    command = [sys.executable, "-c", code, *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert '"level": "error"' not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_signal_ends_the_grace_time(start: Start):
    server = start(HLM_SERVER__DRAIN_GRACE_MS="600000")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.client.get("/health/ready").status_code == 503)
    assert server.stop(signal.SIGTERM) == 0


def damaged_copy(artifact: Path, target: Path, name: str, damage: Callable[[Path], None]) -> Path:
    shutil.copytree(artifact, target)
    damage(target / name)
    return target


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_space(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["space"]["pooling"] = "cls"
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.onnx", flip_last_byte, "model.onnx: has sha256"),
        ("model.onnx", lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes where manifest.json says"),
        ("tokenizer.json", Path.unlink, "tokenizer.json: missing"),
        ("manifest.json", Path.unlink, "manifest.json: cannot be read"),
        ("manifest.json", change_space, "pooling 'cls' against 'mean'"),
    ],
    ids=["flipped byte", "truncated", "missing file", "no manifest", "other space"],
)
def test_a_bad_encoder_refuses_to_start_with_one_sentence(
    encoder: Path, sample_index: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
):
    bad = damaged_copy(encoder, tmp_path / "bad", name, damage)
    result = hlm("serve", "--name", "x", "--encoder", bad, "--index", sample_index, "--port", "0", check=False)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_one_sentence(server: Server, encoder: Path, sample_index: Path):
    port = server.url.rsplit(":", 1)[1]
    result = hlm("serve", "--name", "x", "--encoder", encoder, "--index", sample_index, "--port", port, check=False)
    assert result.returncode == 1
    assert f"error: cannot listen on 127.0.0.1 port {port}" in result.stderr


def test_no_release_at_all_names_the_settings(tmp_path: Path):
    result = hlm("serve", check=False)
    assert result.returncode == 1
    assert "release: is missing" in result.stderr


def test_the_serving_environment_has_neither_torch_nor_transformers():
    """What `make test` builds from requirements/serve.txt, and what the tests above ran on."""
    site = ROOT / ".venv-serve" / "lib"
    if not site.exists():
        pytest.skip("no .venv-serve here: `make test` builds it")
    installed = {path.name for path in site.glob("python3*/site-packages/*")}
    assert {"fastapi", "onnxruntime", "tokenizers", "numpy"} <= installed
    assert not installed & {"torch", "transformers", "optimum", "sentence_transformers", "locust"}
