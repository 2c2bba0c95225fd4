"""What a pipeline is told, of results that are made up."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from loadtest.errors import LoadTestError
from loadtest.finish import end, exit_code
from loadtest.load import Load
from loadtest.recorder import Recorder
from loadtest.result import Event, Result, summarize
from loadtest.samples import Samples
from loadtest.screen import show_result
from loadtest.slo import parse_slo

ANSWER = {"timings_ms": {}, "coverage": {}, "cached": False}


def result(
    slo: str | None = None, *, busy_share: float = 0.1, outcome: str = "ok", requests: int = 10, **fields: object
) -> Result:
    """A phase of ten seconds, whose requests took 50 ms each."""
    recorder = Recorder()
    for second in range(requests):
        recorder.add(second, 0.0, 0.05, outcome, ANSWER if outcome == "ok" else None)
    samples = Samples.of([recorder.take()])
    samples.busy_share = busy_share
    phase = summarize(Load("1/s", 10, 1), 0, samples)
    found = Result(
        title="x",
        started=datetime(2026, 11, 1, tzinfo=UTC),
        url="http://x",
        settings={},
        versions={},
        service={},
        phases=[phase],
        timeline=[],
        verdicts=[one.judge(phase) for one in parse_slo(slo)],
    )
    return found.model_copy(update=fields)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (result(), 0),
        (result("p99=60ms,errors=0%"), 0),
        (result("p99=40ms"), 3),
        (result("p99=60ms", busy_share=0.95), 0),
        (result("p99=40ms", busy_share=0.95), 4),
        (result("p99=60ms", events=[Event(at_s=1, name="swap", done=False)]), 5),
        (result("p99=40ms", events=[Event(at_s=1, name="swap", done=False)]), 3),
        (result("p99=40ms", interrupted=True), 130),
        (result("errors=100%", outcome="503 overloaded"), 0),
        (result("p99=60ms", outcome="503 overloaded"), 3),
        (result("errors=0.1%", requests=0), 3),
        (result("errors=100%,p99=60ms", requests=0, interrupted=True), 130),
    ],
)
def test_exit_codes(found: Result, code: int):
    assert exit_code(found) == code


def test_nothing_but_errors_is_no_success_where_nothing_was_asked_for():
    with pytest.raises(LoadTestError, match="no request was answered well"):
        end(result(outcome="503 overloaded"))
    end(result())


def test_no_request_at_all_is_no_success_either():
    with pytest.raises(LoadTestError, match="no request was due"):
        end(result(requests=0))


def test_a_generator_that_limits_is_warned_of_and_an_objective_that_is_missed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loadtest.screen.console", Console(stderr=True, highlight=False))
    show_result(result("p99=40ms", busy_share=0.95))
    shown = capsys.readouterr()
    assert "warning: the generator itself may be what was measured in 1/s" in shown.err
    assert "1/s: p99=40ms missed with 50.00 ms" in shown.err
    assert "1.0" in shown.out
    show_result(result("p99=60ms"))
    assert "generator" not in capsys.readouterr().err


def test_a_narrow_terminal_cuts_off_no_heading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    show_result(result())
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(name in shown for name in ("offered", "achieved", "p99.9", "errors", "busy"))
