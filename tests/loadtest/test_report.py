"""`hlm loadtest report` and `compare`, on results of one real run each."""

import re
from pathlib import Path

import pytest

from loadtest.report import write_report
from loadtest.result import Capacity, Event, Result
from loadtest.screen import flat
from tests.client.standin import answer, problem, serve
from tests.loadtest.running import loadtest, run


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    turns = iter(range(100_000))
    with serve(lambda _: answer(["a"]) if next(turns) % 10 else problem(503, "overloaded", "")) as service:
        options = ("--rate", "40", "--rate", "80", "--seconds", "1.5")
        return run(service.url, tmp_path_factory.mktemp("run") / "a.json", *options)


def test_the_page_needs_nothing_else_and_says_everything(result: Result, tmp_path: Path):
    shown = result.model_copy(
        update={
            "title": "Swap <script>",
            "events": [Event(at_s=1, name="swap to r2", outcome="ok")],
            "capacity": Capacity(
                rate=321, bound="p99 ≤ 25 ms", knee_rate=300, samples=1, confidence=0.99, margin=0.002
            ),
        }
    )
    page, *pictures = write_report(shown, tmp_path / "deep" / "a.html")
    text = page.read_text()
    assert "Swap &lt;script&gt;" in text
    assert "<script" not in text
    assert text.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!#)', text)  # nothing is loaded; SVG refers to its own parts
    for needle in ("503 overloaded", "swap to r2", "321/s", "knee of the curve", result.versions["locust"], "80/s"):
        assert needle in text, needle
    assert [path.name for path in pictures] == [
        "a-latency-against-rate.png",
        "a-over-time.png",
        "a-histogram.png",
        "a-stages.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_a_result_without_a_good_answer_has_a_page_too(tmp_path: Path):
    out = tmp_path / "none.json"
    with serve(lambda _: problem(503, "overloaded", "")) as service:
        run(service.url, out, "--users", "1", "--seconds", "0.5", code=1)
    loadtest("report", str(out))
    assert "503 overloaded" in out.with_suffix(".html").read_text()


def test_two_results_are_compared_load_by_load(result: Result, tmp_path: Path):
    one, other = tmp_path / "before.json", tmp_path / "after.json"
    one.write_text(result.model_dump_json())
    slower = {**result.phases[1].latency_ms, "p50": 2 * (result.phases[1].latency_ms["p50"] or 0)}
    later = result.phases[1].model_copy(update={"latency_ms": slower})
    other.write_text(result.model_copy(update={"phases": [later]}).model_dump_json())
    lines = loadtest("compare", str(one), str(other)).stdout.splitlines()
    assert any("before" in line and "after" in line for line in lines)
    (p50,) = (line for line in lines if "p50, ms" in line and "server" not in line)
    assert "+100.0%" in p50
    assert not any("40/s" in line for line in lines)


def test_capacities_are_compared_and_settings_that_differ_are_named(result: Result, tmp_path: Path):
    one, other = tmp_path / "one" / "c.json", tmp_path / "other" / "c.json"
    for path, rate, workers in ((one, 200.0, 1), (other, 250.0, 2)):
        path.parent.mkdir()
        found = Capacity(rate=rate, bound="p99=25ms", knee_rate=None, samples=1, confidence=0.99, margin=0.2)
        settings = {**result.settings, "workers": workers}
        path.write_text(result.model_copy(update={"capacity": found, "settings": settings}).model_dump_json())
    shown = loadtest("compare", str(one), str(other))
    (line,) = (line for line in shown.stdout.splitlines() if "capacity/s" in line)
    assert [part for part in ("p99=25ms", "200.00", "250.00", "+25.0%") if part not in line] == []
    assert "differs: workers: 1 → 2" in shown.stderr
    assert "zipf" not in shown.stderr


def test_what_is_no_result_is_refused(tmp_path: Path):
    other = tmp_path / "other.json"
    other.write_text('{"title": "x"}')
    assert f"{other}: is no result of a load test (started:" in loadtest("report", str(other), code=1).stderr
    assert "cannot be read" in loadtest("compare", str(other.with_name("no.json")), str(other), code=1).stderr


def test_settings_are_one_flat_table():
    assert flat({"a": {"b": 1, "c": None}, "d": [], "e": "x", "f": {"g": {"h": True}}}) == {
        "a.b": "1",
        "e": "x",
        "f.g.h": "true",
    }
