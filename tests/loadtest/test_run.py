"""`hlm loadtest run` against a small server whose behaviour the test chooses."""

import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.client.standin import Reply, answer, problem, serve
from tests.loadtest.running import loadtest, run, stalling


def test_a_stall_of_a_second_shows_in_the_open_loop_and_not_in_the_closed(tmp_path: Path):
    with serve(stalling(1, 1)) as service:
        opened = run(service.url, tmp_path / "open.json", "--rate", "100", "--seconds", "4")
    with serve(stalling(1, 1)) as service:
        closed = run(service.url, tmp_path / "closed.json", "--users", "2", "--seconds", "4")
    (phase,) = opened.phases
    assert phase.latency_ms["p90"] is not None
    assert phase.latency_ms["p90"] > 300  # a quarter of the arrivals met the stall
    assert 0.8 * phase.offered_qps < phase.achieved_qps <= phase.offered_qps
    (phase,) = closed.phases
    assert phase.latency_ms["p99"] is not None
    assert phase.latency_ms["p99"] < 300  # two requests did
    assert phase.latency_ms["max"] is not None
    assert phase.latency_ms["max"] > 900


def test_a_result_tells_what_was_sent_and_what_came_back(tmp_path: Path):
    with serve(lambda request: answer(["a", "b"], top_k=request.get("top_k", 10))) as service:
        options = ("--rate", "50", "--arrivals", "constant", "--users", "3", "--seconds", "2", "--top-k", "7")
        result = run(service.url, tmp_path / "deep" / "result.json", *options)
    assert [phase.name for phase in result.phases] == ["50/s", "3 users"]
    opened, closed = result.phases
    assert opened.requests == 100
    assert opened.offered_qps == 50
    assert opened.errors == {}
    assert sum(opened.histogram.counts) == 100
    assert len(opened.histogram.edges_ms) == len(opened.histogram.counts) + 1
    assert opened.stages_ms["encode"]["p50"] == 1.125
    assert closed.requests + opened.requests == len(service.requests)
    assert sum(second.offered for second in result.timeline) == len(service.requests)
    assert all(request["top_k"] == 7 for request in service.requests)
    assert result.settings["top_k"] == {"7": 1.0}
    assert result.versions["locust"]


def test_two_workers_share_the_rate(tmp_path: Path):
    with serve(lambda _: answer(["a"])) as service:
        options = ("--rate", "60", "--arrivals", "constant", "--seconds", "2", "--workers", "2")
        result = run(service.url, tmp_path / "result.json", *options)
    assert result.phases[0].requests == 120
    assert result.settings["workers"] == 2


def test_a_worker_that_is_killed_ends_the_test_and_not_its_truth():
    killed = threading.Event()

    def kill_the_one_who_asks(_: dict[str, Any]) -> Reply:
        if not killed.is_set():
            killed.set()
            [worker] = (child for child in psutil.Process().children(recursive=True) if "--worker" in child.cmdline())
            worker.kill()
        return answer(["a"])

    with serve(lambda request: kill_the_one_who_asks(request) if request else answer([])) as service:
        result = loadtest("run", "--url", service.url, "--users", "1", "--seconds", "30", code=1, timeout_s=25)
    assert "expected 1 workers, one of them is gone" in result.stderr


@pytest.mark.parametrize(
    ("slo", "code"),
    [("errors=1%", 3), ("p99=10s", 0), ("p50=0.001ms", 3), ("p99=10s,errors=100%", 0)],
)
def test_objectives_decide_the_exit_code(slo: str, code: int):
    turns = iter(range(10_000))
    busy = problem(503, "overloaded", "256 are queued")
    with serve(lambda _: busy if next(turns) % 2 else answer(["a"])) as service:
        options = ("--url", service.url, "--users", "1", "--seconds", "0.5", "--slo", slo)
        result = loadtest("run", *options, code=(code, 4) if code else 0)  # 4 on a busy machine
    assert ("missed with" in result.stderr) == (code == 3)
    assert "503 overloaded" in result.stderr


def test_a_service_that_is_not_there_is_an_error_rate_of_one(tmp_path: Path):
    result = run("http://127.0.0.1:9", tmp_path / "result.json", "--users", "1", "--seconds", "0.5")
    (phase,) = result.phases
    assert phase.error_share == 1
    assert list(phase.errors) == ["no answer: ConnectionRefusedError"]
    assert phase.latency_ms["p99"] is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--queries", "nowhere.tsv"), "nowhere.tsv: cannot be read as queries"),
        (("--top-k", "10=x"), "'10=x': expected a number, or shares"),
        (("--slo", "p98=1ms"), "'p98=1ms': expected objectives as in p99=25ms,errors=0.1%"),
        (("--lengths", "9=1"), "the built-in queries: none has 9 words"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(options: tuple[str, ...], complaint: str):
    assert complaint in loadtest("run", *options, code=1).stderr
