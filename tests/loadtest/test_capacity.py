"""The search for a capacity, on a queue that is worked out rather than waited for, and once on a real server."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from loadtest.capacity import Search, find_capacity, knee, parse_search
from loadtest.errors import LoadTestError
from loadtest.load import Load
from loadtest.recorder import Recorder
from loadtest.result import Phase, read_result, summarize
from loadtest.samples import Samples
from tests.client.standin import Reply, answer, serve
from tests.loadtest.running import loadtest

ANSWER = {"timings_ms": {}, "coverage": {}, "cached": False}


class OneServer:
    """Stands in for a measurement: every request takes 2 ms of one server, first come, first served."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    def run(self, load: Load, stop: Any) -> Phase:
        recorder, free_s = Recorder(), 0.0
        assert load.rate
        for number in range(int(load.rate * load.seconds)):
            due_s = number / load.rate
            free_s = max(free_s, due_s) + 0.002
            recorder.add(due_s, 0, free_s - due_s, "ok", ANSWER)
        samples = Samples.of([recorder.take()])
        stop(samples)
        self.phases.append(summarize(load, 0, samples))
        return self.phases[-1]


def test_the_rule_is_that_of_mlperf():
    search = parse_search("p99=25ms", 50, 0.05, confidence=0.99, margin=0.05)
    assert search.samples == 262_742


@pytest.mark.parametrize("first_rate", [30, 490, 3_000])
def test_bisection_finds_what_one_server_can_do(first_rate: float):
    measurement: Any = OneServer()
    found = find_capacity(measurement, parse_search("p99=25ms", first_rate, 0.02, 0.99, 0.5))
    assert found.rate == pytest.approx(500, rel=0.03)
    assert found.bound == "p99=25ms, errors=0.1%"
    assert len(measurement.phases) < 16


def test_the_knee_is_where_latency_takes_off():
    server: Any = OneServer()
    for rate in (100, 200, 300, 400, 480, 520, 560):
        server.run(Load(str(rate), 10, rate), lambda _: False)
    found = knee(server.phases)
    assert found == pytest.approx(480, rel=0.05)
    assert knee(server.phases[:2]) is None


@pytest.mark.parametrize("slo", ["errors=1%", "p50=1ms,p99=2ms", "max=1s"])
def test_objectives_that_no_search_can_have_are_refused(slo: str):
    with pytest.raises(LoadTestError, match="expected one percentile"):
        parse_search(slo, 50, 0.05, 0.99, 0.2)


def test_the_command_finds_and_writes_it(tmp_path: Path):
    lock = threading.Lock()

    def one_at_a_time(_: dict[str, Any]) -> Reply:
        with lock:
            time.sleep(0.02)
        return answer(["a"])

    with serve(one_at_a_time) as service:
        options = ("--slo", "p50=200ms", "--from", "16", "--tolerance", "0.9", "--margin", "0.3")
        options += ("--url", service.url, "--out", str(tmp_path / "c.json"))
        result = loadtest("capacity", *options, code=(0, 4))  # 4 on a machine that is busy with something else
    found = read_result(tmp_path / "c.json")
    assert found.capacity
    assert found.capacity.rate
    assert 16 <= found.capacity.rate <= 50  # a request takes 20 ms of the one that is served at a time
    assert f"capacity {found.capacity.rate:,.1f}/s" in result.stdout


def test_a_step_ends_when_it_cannot_pass_any_more():
    search = Search(*_objectives())
    assert search.samples == 16_422


def _objectives() -> Any:
    search = parse_search("p99=25ms", 50, 0.05, 0.99, 0.2)
    return search.latency, search.errors
