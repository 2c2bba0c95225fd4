"""What the runs of a comparison say, as Markdown: who wins where, the bars, and every figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.peers import OURS, SHORT
from benchmarks.peers.results import Run

ONE_CORE = "one core"
BOTH_CORES = "both cores"

Figures = Mapping[str, float]
Round = Mapping[str, Figures]
"""Figures by peer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is called and judged."""

    label: str
    more_is_better: bool = False


FIGURES = {
    **{f"qps_{n}": Figure(f"answers/s, {n} client{'s' * (n > 1)}", True) for n in (1, 8, 32, 64)},
    "p50_ms_1": Figure("p50 with 1 client, ms"),
    "bare_p50_ms_1": Figure("bare loop: p50 of a query at a time, ms"),
    "bare_qps": Figure("bare loop: answers/s at its best", True),
    "capacity": Figure("capacity at p99 ≤ 25 ms, Poisson arrivals/s", True),
    **{f"p{rank}_ms_{share}": Figure(f"p{rank} at {share} % of it, ms") for share in (50, 80) for rank in (50, 99)},
    "p50_ms_rival": Figure("p50 at half the best other's capacity, ms"),
    "p99_ms_rival": Figure("p99 at half the best other's capacity, ms"),
    **{f"goodput_{n}": Figure(f"good answers/s at {n} × its throughput", True) for n in (2, 5)},
    **{f"skewed_qps_{n}": Figure(f"answers/s, queries of a search log, {n} clients", True) for n in (32, 64)},
    "idle_cpu": Figure("cores used when idle"),
    "rss_mib": Figure("memory, MiB"),
    "ready_s": Figure("ready after, s"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """What the service wants to reach against the best of the others in the same round."""

    label: str
    bound: float
    at_least: bool
    ratio: Callable[[Round], float]
    """Raises KeyError or ValueError where the round does not say."""
    limit: Callable[[Round], float] | None = None
    """The same of a bare loop, which no server on these files passes by much; likewise."""

    def met_by(self, value: float) -> bool:
        """Whether a ratio reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound


def _others(one: Round) -> list[Figures]:
    return [figures for peer, figures in one.items() if peer not in (OURS, SHORT)]


def _best(figures: Figures, prefix: str) -> float:
    return max(value for name, value in figures.items() if name.startswith(prefix))


def best_other(runs: Sequence[Run]) -> Figures | None:
    """The figures of the one with the highest capacity, if one has any."""
    found = [figures for figures in _others({run.peer: run.figures for run in runs}) if figures["capacity"]]
    return max(found, key=lambda figures: figures["capacity"], default=None)


def _best_throughput(one: Round) -> float:
    return max(_best(figures, "qps_") for figures in _others(one))


def _best_p50_ms(one: Round) -> float:
    return min(figures["p50_ms_1"] for figures in _others(one))


def _p99_ratio(one: Round) -> float:
    rival = max(_others(one), key=lambda figures: figures["capacity"])
    return one[OURS]["p99_ms_rival"] / rival["p99_ms_50"]


BARS = (
    Bar(
        "throughput",
        1.25,
        True,
        lambda one: _best(one[OURS], "qps_") / _best_throughput(one),
        lambda one: one[OURS]["bare_qps"] / _best_throughput(one),
    ),
    Bar(
        "p50 with one client",
        0.5,
        False,
        lambda one: one[OURS]["p50_ms_1"] / _best_p50_ms(one),
        lambda one: one[OURS]["bare_p50_ms_1"] / _best_p50_ms(one),
    ),
    Bar("p99 at half the capacity of the best other", 0.5, False, _p99_ratio),
    Bar(
        "goodput at 5 × overload",
        2.0,
        True,
        lambda one: one[OURS]["goodput_5"] / max(p["goodput_5"] for p in _others(one)),
    ),
    Bar(
        "throughput of 3 layers and the cache over 6 layers elsewhere, queries of a search log",
        3.0,
        True,
        lambda one: _best(one[SHORT], "skewed_qps_") / max(_best(p, "skewed_qps_") for p in _others(one)),
    ),
)


def bars(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Of each bar the ratios of all rounds that say one, by its label."""
    return {bar.label: _in_each_round(runs, bar.ratio) for bar in BARS}


def _in_each_round(runs: Sequence[Run], ratio: Callable[[Round], float]) -> list[float]:
    found = []
    for number in sorted({run.round for run in runs}):
        one = {run.peer: run.figures for run in runs if (run.seat, run.round) == (ONE_CORE, number)}
        try:
            found.append(ratio(one))
        except (KeyError, ValueError, ZeroDivisionError):
            continue
    return found


def collected(runs: Sequence[Run], seat: str) -> dict[str, dict[str, list[float]]]:
    """Every round's figures by peer and name."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        if run.seat == seat:
            for name, value in run.figures.items():
                found.setdefault(run.peer, {}).setdefault(name, []).append(value)
    return found


def medians(runs: Sequence[Run], seat: str) -> dict[str, dict[str, float]]:
    """Over the rounds, by peer and name."""
    return {
        peer: {name: median(values) for name, values in figures.items()}
        for peer, figures in collected(runs, seat).items()
    }


def checks(runs: Sequence[Run]) -> dict[str, dict[str, bool]]:
    """By peer and name; passed is what was passed in every round."""
    found: dict[str, dict[str, bool]] = {}
    for run in runs:
        for name, passed in run.checks.items():
            of_peer = found.setdefault(run.peer, {})
            of_peer[name] = of_peer.get(name, True) and passed
    return found


def summary(runs: Sequence[Run]) -> dict[str, object]:
    """Medians by seat and peer, checks by peer, and the ratios of the bars."""
    return {
        **{
            seat: {
                peer: {name: round(value, 3) for name, value in figures.items()}
                for peer, figures in medians(runs, seat).items()
            }
            for seat in (ONE_CORE, BOTH_CORES)
        },
        "checks": checks(runs),
        "bars": {label: round(median(ratios), 3) for label, ratios in bars(runs).items() if ratios},
    }


def render(runs: Sequence[Run]) -> str:
    """All of it."""
    return "\n\n".join(
        [
            *_defeats(runs),
            _bar_table(runs),
            *(_figure_table(runs, seat) for seat in (ONE_CORE, BOTH_CORES)),
            _check_table(runs),
            _made_of(runs),
        ]
    )


def _defeats(runs: Sequence[Run]) -> list[str]:
    """What others do better, one sentence a line."""
    lines = [
        f"- {label}, {seat}: {peer} {_number(value)}, {OURS} {_number(ours)}."
        for seat in (ONE_CORE, BOTH_CORES)
        for label, peer, value, ours in _lost(medians(runs, seat))
    ]
    lost_checks = [
        f"- {name}: passed by {peer}, not by {OURS}."
        for peer, of_peer in checks(runs).items()
        for name, passed in of_peer.items()
        if passed and not checks(runs).get(OURS, {}).get(name, True)
    ]
    lines += lost_checks
    return ["**Where another is better**", "\n".join(lines) or "Nowhere in what follows."]


def _lost(one: Round) -> list[tuple[str, str, float, float]]:
    """Figure, who is best, its value and ours, where that is not this service."""
    found = []
    for name, figure in FIGURES.items():
        values = {peer: figures[name] for peer, figures in one.items() if name in figures and peer != SHORT}
        if OURS in values:
            best = (max if figure.more_is_better else min)(values, key=lambda peer: values[peer])
            if values[best] != values[OURS]:
                found.append((figure.label, best, values[best], values[OURS]))
    return found


def _bar_table(runs: Sequence[Run]) -> str:
    found = bars(runs)
    rows = []
    for bar in BARS:
        ratios = found.get(bar.label)
        met = "not measured" if not ratios else "met" if bar.met_by(median(ratios)) else "**missed**"
        bound = f"{'≥' if bar.at_least else '≤'} {bar.bound:g} ×"
        limits = _in_each_round(runs, bar.limit) if bar.limit else []
        rows.append([bar.label, bound, *(_spread(some) if some else "–" for some in (ratios, limits)), met])
    return "**This service over the best of the others, one core, ratios within a round**\n\n" + _table(
        ["", "wanted", "found", "a bare loop", ""], rows
    )


def _figure_table(runs: Sequence[Run], seat: str) -> str:
    found = collected(runs, seat)
    rows = [
        [figure.label, *(_spread(figures[name]) if name in figures else "–" for figures in found.values())]
        for name, figure in FIGURES.items()
        if any(name in figures for figures in found.values())
    ]
    return f"**Server on {seat}: medians (least – most)**\n\n" + _table(["", *found], rows)


def _check_table(runs: Sequence[Run]) -> str:
    found = checks(runs)
    names = list(dict.fromkeys(name for of_peer in found.values() for name in of_peer))
    said = {True: "pass", False: "**fail**"}
    rows = [[name, *(said[of_peer[name]] for of_peer in found.values())] for name in names]
    return "**Trouble: pass or fail, in every round**\n\n" + _table(["", *found], rows)


def _made_of(runs: Sequence[Run]) -> str:
    """Versions and settings, the machine and how often."""
    latest = {run.peer: run for run in runs}
    rows = [[run.peer, run.version, run.settings] for run in latest.values()]
    rounds, when = len({run.round for run in runs}), max(run.measured_at for run in runs)
    machines = ", ".join(sorted({run.machine for run in runs}))
    said = f"{machines}; {rounds} rounds, {runs[0].seconds:g} s a measurement; last measured {when:%Y-%m-%d}."
    return _table(["", "version", "settings"], rows) + f"\n\n{said}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: Sequence[float]) -> str:
    middle = _number(median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} – {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
