"""`hlm loadtest run` against a small server whose behaviour the test chooses."""

import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest.result import read_result
from tests.client.standin import Reply, answer, problem, serve
from tests.loadtest.running import free_port, loadtest, run, stalling, started, workers_by_hand


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
    assert closed.requests + opened.requests == len(service.requests) - 1  # but for the one that looks who is there
    assert sum(second.offered for second in result.timeline) == len(service.requests) - 1
    assert all(request["top_k"] == 7 for request in service.requests)
    assert result.settings["top_k"] == {"7": 1.0}
    assert result.settings["loads"] == ["50/s, constant", "3 users, closed loop"]
    assert result.versions["locust"]


def test_two_workers_share_the_rate(tmp_path: Path):
    with serve(lambda _: answer(["a"])) as service:
        options = ("--rate", "60", "--arrivals", "constant", "--seconds", "2", "--workers", "2")
        result = run(service.url, tmp_path / "result.json", *options)
    assert result.phases[0].requests == 120
    assert result.settings["workers"] == 2


def test_a_worker_that_is_killed_ends_the_test_and_not_its_truth():
    calls = itertools.count()

    def kill_the_one_who_asks(_: dict[str, Any]) -> Reply:
        if next(calls) == 1:  # the first is no worker's, and asks whether this is a service at all
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


def test_a_service_that_only_fails_is_measured_and_said_to_have_answered_nothing_well(tmp_path: Path):
    out = tmp_path / "result.json"
    with serve(lambda _: problem(503, "overloaded", "256 are queued")) as service:
        options = ("--url", service.url, "--users", "1", "--seconds", "0.5", "--out", str(out))
        result = loadtest("run", *options, code=1)
    assert "503 overloaded" in result.stderr
    assert "no request was answered well" in result.stderr
    (phase,) = read_result(out).phases
    assert phase.error_share == 1
    assert phase.latency_ms["p99"] is None


def half_a_minute_or_more(command: str, directory: Path) -> list[str]:
    """Arguments of a test that would take that long."""
    if command != "scenario":
        options = {"closed loop": ["run", "--users", "2", "--seconds", "600"]}
        return options.get(command, ["capacity", "--from", "60"])
    file = directory / "scenario.yaml"
    later = "{at_s: 300, name: later, do: {kind: run, command: [touch, later]}}"
    file.write_text(f"title: long\nloads: [{{name: a, rate: 60, seconds: 600}}]\nevents: [{later}]\n")
    return ["scenario", str(file)]


class Answering:
    """Answers every request, and says when there were some."""

    def __init__(self) -> None:
        self._calls = itertools.count()
        self.some = threading.Event()

    def __call__(self, _: dict[str, Any]) -> Reply:
        if next(self._calls) == 30:
            self.some.set()
        return answer(["a"])


@pytest.mark.parametrize("command", ["closed loop", "capacity", "scenario"])
def test_whatever_is_interrupted_keeps_what_it_saw(tmp_path: Path, command: str):
    out = tmp_path / "result.json"
    respond = Answering()
    with serve(respond) as service:
        options = ("--url", service.url, "--out", str(out))
        with started(*half_a_minute_or_more(command, tmp_path), *options) as running:
            assert respond.some.wait(timeout=60)
            running.send_signal(signal.SIGINT)
            _, complaints = running.communicate(timeout=60)
    assert running.returncode == 130, complaints
    assert "Traceback" not in complaints
    result = read_result(out)
    assert result.interrupted
    assert result.requests >= 25
    assert (result.capacity, result.events) == (None, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_test_that_is_interrupted_keeps_what_it_saw(tmp_path: Path, number: signal.Signals):
    out, report = tmp_path / "result.json", tmp_path / "result.html"
    respond = Answering()
    with serve(respond) as service:
        options = ("--rate", "60", "--seconds", "600", "--out", str(out), "--report", str(report))
        with started("run", "--url", service.url, *options) as command:
            assert respond.some.wait(timeout=60)
            command.send_signal(number)
            _, complaints = command.communicate(timeout=60)
    assert command.returncode == 130, complaints
    assert "interrupted" in complaints
    assert "Traceback" not in complaints
    result = read_result(out)
    (phase,) = result.phases
    assert result.interrupted
    assert phase.requests >= 29
    assert phase.offered_qps == phase.requests / phase.seconds
    assert phase.seconds < 300
    assert "Interrupted" in report.read_text()


def test_two_workers_that_were_started_by_hand_share_the_rate(tmp_path: Path):
    port = free_port()
    with workers_by_hand(port) as workers, serve(lambda _: answer(["a"])) as service:
        options = ("--workers", "0", "--remote-workers", "2", "--port", port)
        options += ("--rate", "60", "--arrivals", "constant", "--seconds", "2")
        result = run(service.url, tmp_path / "result.json", *options)
        assert [worker.wait(timeout=30) for worker in workers] == [0, 0]
    assert result.phases[0].requests == 120


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--queries", "nowhere.tsv"), "nowhere.tsv: cannot be read as queries (No such file or directory)"),
        (("--top-k", "10=x"), "'10=x': expected a number, or shares"),
        (("--slo", "p98=1ms"), "'p98=1ms': expected objectives as in p99=25ms,errors=0.1%"),
        (("--lengths", "9=1"), "the built-in queries: none has 9 words"),
        (("--url", "localhost:8080"), "'localhost:8080': expected a URL such as http://127.0.0.1:8080"),
        (("--url", "http://127.0.0.1:9"), "POST http://127.0.0.1:9/retrieve: nobody answers there"),
        (("--out", "README.md/a.json"), "README.md/a.json: cannot be written"),
        (("--report", "README.md/a/b.html"), "README.md/a/b.html: cannot be written"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(options: tuple[str, ...], complaint: str):
    (line,) = loadtest("run", *options, code=1).stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--workers", "0"), "expected workers to send the load"),
        (("--remote-workers", "1"), "expected --port with --remote-workers"),
    ],
)
def test_workers_that_cannot_be_are_refused(options: tuple[str, ...], complaint: str):
    with serve(lambda _: answer(["a"])) as service:
        assert complaint in loadtest("run", "--url", service.url, *options, code=1).stderr


def test_a_port_that_is_taken_is_named():
    with serve(lambda _: answer(["a"])) as service:
        port = service.url.rpartition(":")[2]
        options = ("--url", service.url, "--remote-workers", "1", "--port", port)
        (line,) = loadtest("run", *options, code=1).stderr.splitlines()
    assert line.startswith(f"error: --port {port}: expected one that is free")


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (Reply(404, b"<h1>Not Found</h1>", "text/html"), "found 404, but not JSON"),
        (Reply(200, b'{"hello": 1}'), "found 200, but malformed"),
        (problem(400, "invalid_request", "filters: there is no `market`"), "(filters: there is no `market`)"),
    ],
    ids=["no such path", "another service", "requests that it refuses"],
)
def test_what_is_no_service_for_these_requests_is_found_before_the_load(reply: Reply, complaint: str):
    with serve(lambda _: reply) as service:
        (line,) = loadtest("run", "--url", service.url, code=1).stderr.splitlines()
        assert len(service.requests) == 1
    assert f"error: POST {service.url}/retrieve: expected ads for " in line
    assert complaint in line
