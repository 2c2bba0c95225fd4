"""Progress: a line every few seconds in a log, a bar on a terminal."""

import io
import re
import threading

import pytest
from rich.console import Console

import terminal
from tests.waiting import wait_until


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    output = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=output, width=120))
    return output


def test_a_log_gets_a_line_an_interval_and_one_at_the_end(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("Embedding ads", 1_000, "ads", done=200) as advance:
        for _ in range(8):
            now += 2.0
            advance(100)
    assert screen.getvalue().splitlines() == [
        "Embedding ads: 500 of 1,000 ads, 50/s, 10 s left",
        "Embedding ads: 800 of 1,000 ads, 50/s, 4 s left",
        "Embedding ads: 1,000 of 1,000 ads in 16.0 s",
    ]


def test_a_terminal_gets_a_bar_with_count_and_rate(monkeypatch: pytest.MonkeyPatch):
    output = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=output, width=120, force_terminal=True, force_interactive=True)
    )
    with terminal.progress("Embedding ads", 10, "ads") as advance:
        advance(5)
        advance(5)
    assert "Embedding ads" in output.getvalue()
    assert "10/10" in output.getvalue()
    assert "ads/s" in output.getvalue()


def test_a_word_on_how_it_goes_is_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("Align", 4, "steps") as advance:
        now = 10.0
        advance(2, "loss 0.1234")
    assert screen.getvalue().splitlines()[0] == "Align: 2 of 4 steps, 0.2/s, 10 s left, loss 0.1234"


def test_a_bar_shows_rates_below_one(monkeypatch: pytest.MonkeyPatch):
    """A step of a large model takes seconds, and "0 steps/s" says nothing."""
    now, output = 0.0, io.StringIO()
    console = Console(file=output, width=120, force_terminal=True, force_interactive=True, get_time=lambda: now)
    monkeypatch.setattr(terminal, "console", console)
    with terminal.progress("Teacher", 10, "steps") as advance:
        for _ in range(10):
            now += 4.0
            advance(1)
    assert "0.25 steps/s" in output.getvalue()


def test_a_log_is_told_again_and_again_how_long_something_takes(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(terminal, "LOG_INTERVAL_S", 0.001)
    with terminal.waiting("Building"):
        wait_until(lambda: screen.getvalue().count("\n") >= 3)
    said = screen.getvalue().splitlines()
    assert said[0] == "Building …"
    assert all(re.fullmatch(r"Building: \d+ s", line) for line in said[1:])


def test_nothing_is_said_after_a_failure(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="odd"), terminal.waiting("Building"):
        raise ValueError("odd")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_time_left_is_shown_whole_where_a_long_word_on_how_it_goes_leaves_little_room(
    monkeypatch: pytest.MonkeyPatch,
):
    output, now = io.StringIO(), 0.0
    narrow = Console(file=output, width=80, force_terminal=True, force_interactive=True, get_time=lambda: now)
    monkeypatch.setattr(terminal, "console", narrow)
    with terminal.progress("2,000/s", 60, "s", rate=False) as advance:
        for _ in range(3):
            now += 1.0
            advance(1, "2,000/s due, 1,987/s done, p50 12.3, p99 145.6 ms, 1,234 errors, and then some")
    assert "0:00:57" in output.getvalue()
