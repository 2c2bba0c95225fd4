import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.open_load import ABANDONED, FAILED
from benchmarks.peers.behaviour import lost_before, serves_stayers
from benchmarks.peers.peers import OURS, SHORT
from benchmarks.peers.publish import BEGIN, END, draw, insert
from benchmarks.peers.report import BOTH_CORES, ONE_CORE, bars, checks, medians, render, summary
from benchmarks.peers.results import Results, Run, read_runs
from tests.benchmarks.test_overload import load_of

MACHINE = "a processor × 2"


def figures_of(qps: float, p50_ms: float, **others: float) -> dict[str, float]:
    """A server that is as fast with any number of clients."""
    rates = {f"qps_{clients}": qps for clients in (1, 8, 32, 64)}
    return {**rates, "p50_ms_1": p50_ms, "capacity": qps / 2, "p99_ms_50": 20.0, "rss_mib": 200.0, **others}


def run_of(peer: str, figures: dict[str, float], number: int = 0, seat: str = ONE_CORE, **passed: bool) -> Run:
    """A run of a second a measurement."""
    return Run(
        peer=peer,
        version=f"{peer} 1.0",
        settings="defaults",
        seat=seat,
        round=number,
        seconds=1.0,
        machine=MACHINE,
        measured_at=datetime(2026, 11, 23, tzinfo=UTC),
        figures=figures,
        checks=passed,
    )


def comparison() -> list[Run]:
    """Two rounds: the second on a machine half as fast, as a shared one may be."""
    return [
        run
        for number, speed in ((0, 1.0), (1, 0.5))
        for run in (
            run_of("slow", figures_of(100 * speed, 9 / speed, goodput_5=10 * speed), number, poison=True),
            run_of("fast", figures_of(400 * speed, 4 / speed, goodput_5=90 * speed), number, poison=number == 0),
            run_of(
                OURS,
                figures_of(600 * speed, 1 / speed, goodput_5=450 * speed, p99_ms_rival=5.0) | {"rss_mib": 300.0},
                number,
                poison=True,
            ),
        )
    ]


def test_bars_are_ratios_to_the_best_of_the_others_within_a_round():
    found = bars(comparison())
    assert found["throughput"] == [1.5, 1.5]
    assert found["p50 with one client"] == [0.25, 0.25]
    assert found["p99 at half the capacity of the best other"] == [0.25, 0.25]
    assert found["goodput at 5 × overload"] == [5.0, 5.0]


def test_the_short_student_is_held_against_the_best_of_the_others_with_the_same_queries():
    runs = [
        run_of("fast", figures_of(400, 4, skewed_qps_32=300.0, skewed_qps_64=400.0)),
        run_of(SHORT, {"skewed_qps_32": 1_400.0, "skewed_qps_64": 1_300.0}),
    ]
    [ratios] = [values for label, values in bars(runs).items() if "3 layers" in label]
    assert ratios == [3.5]


def test_medians_are_over_the_rounds_and_a_check_is_passed_in_all_of_them():
    runs = [*comparison(), run_of("fast", figures_of(700, 3), seat=BOTH_CORES)]
    assert medians(runs, ONE_CORE)["fast"]["qps_8"] == 300
    assert medians(runs, BOTH_CORES) == {"fast": figures_of(700, 3)}
    assert checks(runs) == {"slow": {"poison": True}, "fast": {"poison": False}, OURS: {"poison": True}}


def test_what_another_does_better_comes_first():
    first, *_ = render(comparison()).partition("This service over")
    assert "memory, MiB, one core: slow 200, this service 300." in first
    assert "answers/s" not in first


def test_a_bar_that_is_missed_says_so():
    even = [run_of("fast", figures_of(400, 4)), run_of(OURS, figures_of(480, 1))]
    [line] = [line for line in render(even).splitlines() if line.startswith("| throughput |")]
    assert line == "| throughput | ≥ 1.25 × | 1.20 | – | **missed** |"


def test_what_a_bare_loop_would_reach_stands_beside_a_bar():
    bare = {"bare_qps": 500.0, "bare_p50_ms_1": 2.4}
    runs = [run_of("fast", figures_of(400, 4)), run_of(OURS, figures_of(480, 3) | bare)]
    lines = render(runs).splitlines()
    assert "| throughput | ≥ 1.25 × | 1.20 | 1.25 | **missed** |" in lines
    assert "| p50 with one client | ≤ 0.5 × | 0.75 | 0.60 | **missed** |" in lines


def test_the_summary_is_plain_json():
    found = json.loads(json.dumps(summary(comparison())))
    assert found[ONE_CORE]["slow"]["qps_1"] == 75
    assert found["bars"]["throughput"] == 1.5


def test_results_are_gone_on_with(tmp_path: Path):
    path = tmp_path / "reports" / "peers.jsonl"
    first = Results(path, 1.0, MACHINE)
    run = run_of("fast", figures_of(400, 4), number=1)
    first.add(run)
    again = Results(path, 1.0, MACHINE)
    assert again.runs == read_runs(path) == [run]
    assert again.find("fast", ONE_CORE, 1) == run
    assert again.find("fast", BOTH_CORES, 1) is None
    assert again.find("fast", ONE_CORE, 0) is None


@pytest.mark.parametrize(("seconds", "machine"), [(2.0, MACHINE), (1.0, "another")], ids=["time", "machine"])
def test_results_of_another_kind_are_not_mixed_in(tmp_path: Path, seconds: float, machine: str):
    path = tmp_path / "peers.jsonl"
    Results(path, 1.0, MACHINE).add(run_of("fast", figures_of(400, 4)))
    with pytest.raises(BenchmarkError, match="move it away"):
        Results(path, seconds, machine)


def test_the_page_keeps_what_is_around_the_marks():
    page = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nrest\n"
    assert insert(page, "new") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"
    with pytest.raises(BenchmarkError, match="lacks"):
        insert("# Title\n", "new")


def test_the_plot_names_every_server(tmp_path: Path):
    runs = [*comparison(), run_of(OURS, figures_of(900, 1), seat=BOTH_CORES), run_of(SHORT, {"skewed_qps_32": 9.0})]
    draw(runs, tmp_path / "peers.svg")
    assert "<svg" in (tmp_path / "peers.svg").read_text()


def test_who_hung_up_need_not_be_answered_but_who_stayed_must_in_time():
    status = [200] * 100 + [ABANDONED] * 100
    assert serves_stayers(load_of([0.05] * 199 + [0.15], status, seconds=1))
    assert not serves_stayers(load_of([0.15] * 2 + [0.05] * 198, status, seconds=1))


def test_only_what_was_sent_before_the_signal_counts_as_lost():
    load = load_of([0.01] * 4, [200, 503, FAILED, 200], seconds=1)  # sent at 0.125, 0.375, 0.625 and 0.875
    assert lost_before(load, 0.5) == 1
    assert lost_before(load, 0.75) == 2
