"""`hlm loadtest scenario` with everything that it can do to a service."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import LoadTestError
from loadtest.result import read_result
from loadtest.scenario import read_scenario
from tests.client.standin import Reply, answer, serve
from tests.loadtest.running import loadtest

SCENARIO = """
title: A spike, and much else
traffic: {{queries: queries.txt, top_k: {{7: 1}}}}
arrivals: constant
loads:
  - {{name: usual, rate: 20, seconds: 2}}
  - {{name: spike, rate: 60, seconds: 1}}
  - {{name: after, rate: 20, seconds: 1}}
events:
  - {{at_s: 0.5, name: a command, do: {{kind: run, command: [{python}, -c, "raise SystemExit(7)"]}}}}
  - {{at_s: 0.6, name: swap to r2, do: {{kind: swap, name: r2, encoder: e, index: i, admin_url: "{url}"}}}}
  - {{at_s: 0.7, name: bids, do: {{kind: ad_updates, rate: 10, seconds: 1, admin_url: "{url}"}}}}
  - {{at_s: 1.0, name: kill, do: {{kind: kill, pid_file: "{pid_file}", signal: TERM}}}}
  - {{at_s: 1.0, name: slow, do: {{kind: slow_clients, clients: 3, seconds: 1}}}}
  - {{at_s: 1.0, name: go away, do: {{kind: disconnects, rate: 10, seconds: 1}}}}
  - {{at_s: 1.5, name: nobody there, do: {{kind: swap, name: r3, encoder: e, index: i, admin_url: "http://127.0.0.1:9"}}}}
  - {{at_s: 1.5, name: no address, do: {{kind: swap, name: r3, encoder: e, index: i, admin_url: "http://127.0.0.1:x"}}}}
"""


def test_loads_follow_each_other_and_events_happen_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HLM_ADMIN_TOKEN", "secret")
    (tmp_path / "queries.txt").write_text("drill\n")
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (tmp_path / "pid").write_text(str(victim.pid))

    def respond(_: dict[str, Any]) -> Reply:
        return answer(["a/1", "b"], top_k=7)

    with serve(respond) as service:
        file = tmp_path / "scenario.yaml"
        file.write_text(SCENARIO.format(python=sys.executable, url=service.url, pid_file=tmp_path / "pid"))
        out = tmp_path / "out.json"
        # The stand-in answers POST on /retrieve alone, so the swap fails; that ends no load.
        options = ("--url", service.url, "--out", str(out), "--slo", "errors=0.1%")
        shown = loadtest("scenario", str(file), *options, code=5).stderr
    assert "swap to r2: failed" in shown
    assert victim.wait(timeout=10) == -15
    result = read_result(out)
    assert [(phase.name, phase.requests) for phase in result.phases] == [("usual", 40), ("spike", 60), ("after", 20)]
    assert [phase.from_s for phase in result.phases[1:]] == sorted(phase.from_s for phase in result.phases[1:])
    outcomes = {event.name: event.outcome for event in result.events}
    undone = {event.name for event in result.events if not event.done}
    assert undone == {"a command", "swap to r2", "nobody there", "no address"}
    assert outcomes["a command"] == "exit code 7"
    assert outcomes["swap to r2"].startswith("failed")
    assert outcomes["bids"] == "10 of 10 bids changed"
    assert outcomes["kill"] == f"sent SIGTERM to process {victim.pid}"
    assert outcomes["slow"] == "0 of 3 were cut off by the service"
    assert outcomes["go away"] == "10 clients asked and went away"
    assert outcomes["nobody there"].startswith("failed: ConnectError")
    assert outcomes["no address"].startswith("failed: InvalidURL")
    assert {request["query"] for request in service.requests} == {"drill", "cordless drill 18v"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title: x", "loads: Field required"),
        ("title: x\nloads: []", "loads: "),
        ("title: x\nloads: [{name: a, rate: 0, seconds: 1}]", r"loads\.0\.rate: "),
        ("title: [", "is not YAML"),
        ("title: x\ntraffic: {top_k: {0: 1}}\nloads: [{name: a, rate: 1, seconds: 1}]", "traffic.top_k"),
        ("title: x\ntraffic: {lengths: {1: -1}}\nloads: [{name: a, rate: 1, seconds: 1}]", "traffic.lengths"),
        ("title: x\nloads: [{name: a, rate: 1, seconds: 1}]\nevents: [{at_s: 1, name: k, do: {kind: kill}}]", "either"),
        ("title: x\nloads: [{name: a, rate: 1, seconds: 1}]\nevents: [{at_s: 1, name: k, do: {kind: nap}}]", "nap"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path: Path, text: str, complaint: str):
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    with pytest.raises(LoadTestError, match=complaint):
        read_scenario(file)


@pytest.mark.parametrize("file", sorted(Path("config/loadtest").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_scenarios(file: Path):
    assert read_scenario(file).loads
