"""`hlm loadtest`: load tests of a running service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from loadtest.traffic import Traffic

app = typer.Typer(no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Where the service listens.")]
Rates = Annotated[
    list[float] | None, typer.Option("--rate", min=0.01, help="Open loop: arrivals a second; several in turn.")
]
Users = Annotated[list[int] | None, typer.Option(min=1, help="Closed loop: users; several in turn.")]
Seconds = Annotated[float, typer.Option(min=0.5, help="Of each load.")]
Queries = Annotated[Path | None, typer.Option(help="Tab-separated with a column text, or one a line; gzip or not.")]
Zipf = Annotated[float, typer.Option(min=0, help="The query at rank r is asked as often as 1 / r^ZIPF; 0: in turn.")]
NewShare = Annotated[float, typer.Option(min=0, max=1, help="Share of queries that were never asked before.")]
Lengths = Annotated[str, typer.Option(metavar="MIX", help="Share by number of words, as in 1=0.2,3=0.8.")]
TopK = Annotated[str, typer.Option(metavar="MIX", help="Most ads wanted: 100, or shares as in 10=0.2,100=0.8.")]
Filters = Annotated[Path | None, typer.Option(help='JSON list of {"share": 0.5, "filters": {…}}.')]
TimeoutMs = Annotated[int, typer.Option(min=1, max=10_000, help="Time budget of each request.")]
Seed = Annotated[int, typer.Option(help="Of queries and arrivals.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that generate, on this machine.")]
RemoteWorkers = Annotated[int, typer.Option(min=0, help="Further ones that are waited for, with --port.")]
Port = Annotated[int, typer.Option(help="To which workers connect; 0: a free one.")]
Slo = Annotated[str | None, typer.Option(help="Objectives of every load, as in p99=25ms,errors=0.1%.")]
Out = Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")]
Report = Annotated[Path | None, typer.Option(help="Write a page about it to this HTML file, and PNGs beside it.")]


@app.callback(help="Test a running service under load; needs the extra `load`.")
def prepare() -> None:
    """Let gevent patch sockets and threads before anything that uses them is imported."""
    from loadtest.errors import LoadTestError

    try:
        import locust  # noqa: F401
    except ImportError as error:
        raise LoadTestError(f"hlm loadtest needs the extra `load` of hlm-retrieval: {error}") from error


@app.command()
def run(
    url: Url = "http://127.0.0.1:8080",
    rates: Rates = None,
    users: Users = None,
    arrivals: Annotated[Literal["poisson", "constant"], typer.Option(help="Of the open loop.")] = "poisson",
    seconds: Seconds = 30.0,
    queries: Queries = None,
    zipf: Zipf = 0.0,
    new_share: NewShare = 0.0,
    lengths: Lengths = "",
    top_k: TopK = "100",
    filters: Filters = None,
    timeout_ms: TimeoutMs = 1_000,
    seed: Seed = 0,
    workers: Workers = 1,
    remote_workers: RemoteWorkers = 0,
    port: Port = 0,
    slo: Slo = None,
    out: Out = None,
    report: Report = None,
) -> None:
    """Send loads, one after the other, and say how the service fared.

    With --rate requests leave when they are due, whether or not earlier ones
    were answered, and latency counts from then: what users of a site would
    see. With --users each asks again once it has its answer: what a pool of
    callers would see, and blind to stalls.

    Examples:
      hlm loadtest run --rate 200
      hlm loadtest run --rate 100 --rate 200 --rate 400 --out var/reports/a.json
      hlm loadtest run --rate 200 --report var/reports/a.html
      hlm loadtest run --users 1 --users 32 --seconds 10
      hlm loadtest run --rate 200 --slo p99=25ms,errors=0.1%

    Exit codes:
      0  the objectives were met, or none were given
      1  the test could not be run, or without objectives nothing was answered
         well, with one sentence that says why
      2  wrong usage
      3  an objective was missed
      4  one was missed, but the generator may be what was measured
      5  an event of a scenario did not come about
    130  interrupted; what was measured by then is shown and written
    """
    from loadtest.finish import end, finish
    from loadtest.load import Load
    from loadtest.measure import Measurement, service_info
    from loadtest.preflight import check_places, check_service
    from loadtest.session import session
    from loadtest.slo import parse_slo

    objectives = parse_slo(slo)
    traffic = _traffic(queries, zipf, new_share, lengths, top_k, filters, timeout_ms, seed)
    loads = [Load(f"{rate:g}/s", seconds, rate, arrivals) for rate in rates or ([] if users else [100.0])]
    loads += [Load(f"{count} user{'s' if count > 1 else ''}", seconds, users=count) for count in users or []]
    check_places(out, report)
    check_service(url, traffic)
    service = service_info(url)
    with session(url, traffic, workers=workers, remote_workers=remote_workers, port=port) as opened:
        measurement = Measurement(opened)
        with measurement.until_interrupted():
            for load in loads:
                measurement.run(load)
    settings: dict[str, object] = {"loads": [str(load) for load in loads], "seconds": seconds, "slo": slo}
    settings |= _settings(traffic, workers + remote_workers)
    result = measurement.result("Load test", url, settings, service, objectives)
    finish(result, out, report)
    end(result)


@app.command()
def capacity(
    url: Url = "http://127.0.0.1:8080",
    slo: Annotated[str, typer.Option(help="A percentile, and errors or 0.1%.")] = "p99=25ms,errors=0.1%",
    first_rate: Annotated[float, typer.Option("--from", min=1, help="The rate to begin with.")] = 50.0,
    tolerance: Annotated[float, typer.Option(min=0.005, max=1, help="How closely the rate is found, a share.")] = 0.05,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="With which a step is judged.")] = 0.99,
    margin: Annotated[
        float, typer.Option(min=0.01, max=1, help="How closely a step knows the share of late requests; MLPerf: 0.05.")
    ] = 0.2,
    queries: Queries = None,
    zipf: Zipf = 0.0,
    new_share: NewShare = 0.0,
    lengths: Lengths = "",
    top_k: TopK = "100",
    filters: Filters = None,
    timeout_ms: TimeoutMs = 1_000,
    seed: Seed = 0,
    workers: Workers = 1,
    remote_workers: RemoteWorkers = 0,
    port: Port = 0,
    out: Out = None,
    report: Report = None,
) -> None:
    """Find the highest Poisson rate that meets objectives, by bisection.

    A step takes as many requests as the confidence and the margin ask for:
    16,422 by default for p99, or 33 s at 500 a second, and ends early when it
    cannot be met any more. --margin 0.05 is MLPerf's own: 262,742.

    Examples:
      hlm loadtest capacity --slo p99=25ms,errors=0.1%
      hlm loadtest capacity --from 200 --margin 0.5 --report var/reports/c.html

    Exit codes:
      0  found
      1  the test could not be run, or no rate met the objectives
      2  wrong usage
      4  found, but the generator may be what was measured
    130  interrupted; what was measured by then is shown and written
    """
    from loadtest.capacity import find_capacity, parse_search
    from loadtest.errors import LoadTestError
    from loadtest.finish import INTERRUPTED, UNTRUSTED, finish
    from loadtest.measure import Measurement, service_info
    from loadtest.preflight import check_places, check_service
    from loadtest.result import Capacity
    from loadtest.session import session

    search = parse_search(slo, first_rate, tolerance, confidence, margin)
    traffic = _traffic(queries, zipf, new_share, lengths, top_k, filters, timeout_ms, seed)
    check_places(out, report)
    check_service(url, traffic)
    service = service_info(url)
    found: Capacity | None = None
    with session(url, traffic, workers=workers, remote_workers=remote_workers, port=port) as opened:
        measurement = Measurement(opened)
        with measurement.until_interrupted():
            found = find_capacity(measurement, search)
    settings: dict[str, object] = {"slo": slo, "from": first_rate, "tolerance": tolerance}
    settings |= {"confidence": confidence, "margin": margin, "samples": search.samples}
    settings |= _settings(traffic, workers + remote_workers)
    result = measurement.result("Capacity", url, settings, service)
    finish(result.model_copy(update={"capacity": found}), out, report)
    if found is None:
        raise typer.Exit(INTERRUPTED)
    if found.rate is None:
        raise LoadTestError(f"no rate down to 1/s met {found.bound}")
    typer.echo(f"capacity {found.rate:,.1f}/s at {found.bound}")
    if any(phase.generator.limits for phase in result.phases if phase.offered_qps > found.rate):
        raise typer.Exit(UNTRUSTED)


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The service's request log: a file or the directory.")],
    url: Url = "http://127.0.0.1:8080",
    speed: Annotated[float, typer.Option(min=0.001, help="How much faster than they once came.")] = 1.0,
    timeout_ms: TimeoutMs = 1_000,
    workers: Workers = 1,
    remote_workers: RemoteWorkers = 0,
    port: Port = 0,
    slo: Slo = None,
    out: Out = None,
    report: Report = None,
) -> None:
    """Send the requests of a log at the times at which they once came.

    The log must have been written with `query_text: text`. A sampled one has
    its share of the rate: one of 1 % at --speed 100 is about as busy as the
    original, if less bursty.

    Examples:
      hlm loadtest replay /var/log/hlm
      hlm loadtest replay requests-2026-11-23T14.ndjson --speed 10

    Exit codes: as of `hlm loadtest run`.
    """
    from loadtest.finish import end, finish
    from loadtest.load import Load
    from loadtest.measure import Measurement, service_info
    from loadtest.preflight import check_places, check_service
    from loadtest.replay import read_log
    from loadtest.session import session
    from loadtest.slo import parse_slo
    from loadtest.traffic import Traffic

    objectives = parse_slo(slo)
    logged = read_log(log, timeout_ms)
    seconds = max(1.0, logged[-1].at_s / speed)
    load = Load(log.stem, seconds, len(logged) / seconds, log=str(log.resolve()), speed=speed)
    traffic = Traffic(timeout_ms=timeout_ms)
    check_places(out, report)
    check_service(url, traffic)
    service = service_info(url)
    with session(url, traffic, workers=workers, remote_workers=remote_workers, port=port) as opened:
        measurement = Measurement(opened)
        with measurement.until_interrupted():
            measurement.run(load)
    settings: dict[str, object] = {"log": str(log), "speed": speed, "timeout_ms": timeout_ms, "slo": slo}
    settings["workers"] = workers + remote_workers
    result = measurement.result(f"Replay at {speed:g} ×", url, settings, service, objectives)
    finish(result, out, report)
    end(result)


@app.command()
def scenario(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML; see docs/loadtest.md.")],
    url: Url = "http://127.0.0.1:8080",
    workers: Workers = 1,
    remote_workers: RemoteWorkers = 0,
    port: Port = 0,
    slo: Slo = None,
    out: Out = None,
    report: Report = None,
) -> None:
    """Send loads without a pause, and swap, kill and disturb meanwhile.

    Examples:
      hlm loadtest scenario config/loadtest/spike.yaml --report var/reports/s.html

    Exit codes: as of `hlm loadtest run`.
    """
    import gevent

    from loadtest.finish import end, finish
    from loadtest.happenings import plan
    from loadtest.measure import Measurement, service_info
    from loadtest.preflight import check_places, check_service
    from loadtest.scenario import read_scenario
    from loadtest.session import session
    from loadtest.slo import parse_slo

    objectives = parse_slo(slo)
    planned = read_scenario(file)
    check_places(out, report)
    check_service(url, planned.traffic)
    service = service_info(url)
    with session(url, planned.traffic, workers=workers, remote_workers=remote_workers, port=port) as opened:
        measurement = Measurement(opened)
        events = plan(planned.events, url, measurement)
        with measurement.until_interrupted():
            measurement.run_on(planned.title, planned.all_loads())
            gevent.joinall(events)
        gevent.killall(events)
    loads = [f"{load.name}: {load}, {load.seconds:g} s" for load in planned.all_loads()]
    settings: dict[str, object] = {"scenario": str(file), "loads": loads, "slo": slo}
    settings |= _settings(planned.traffic, workers + remote_workers)
    result = measurement.result(planned.title, url, settings, service, objectives)
    finish(result, out, report)
    end(result)


@app.command("report")
def write(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="JSON file of a load test.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; by default beside the result.")] = None,
) -> None:
    """Make one HTML page of a result, which needs nothing else, and PNGs beside it.

    Examples:
      hlm loadtest report var/reports/a.json

    Exit codes:
      0  written
      1  the file is no result, with one sentence that says why
      2  wrong usage
    """
    from loadtest.report import write_report
    from loadtest.result import read_result
    from loadtest.screen import show_written

    for path in write_report(read_result(result), out or result.with_suffix(".html")):
        show_written(path)


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="JSON file of a load test.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Show two results beside each other, for the loads that both have.

    Examples:
      hlm loadtest compare var/reports/a.json var/reports/b.json

    Exit codes:
      0  shown
      1  they have no load in common, or one is no result; one sentence says so
      2  wrong usage
    """
    from loadtest.compare import show_comparison
    from loadtest.result import read_result

    short = one.stem, other.stem
    longer = f"{one.parent.name}/{one.stem}", f"{other.parent.name}/{other.stem}"
    show_comparison(read_result(one), read_result(other), short if one.stem != other.stem else longer)


def _traffic(
    queries: Path | None,
    zipf: float,
    new_share: float,
    lengths: str,
    top_k: str,
    filters: Path | None,
    timeout_ms: int,
    seed: int,
) -> "Traffic":
    from loadtest.traffic import Traffic, parse_mix, read_filters

    return Traffic(
        queries=queries.resolve() if queries else None,
        zipf=zipf,
        new_share=new_share,
        lengths=parse_mix(lengths) if lengths else {},
        top_k=parse_mix(top_k),
        filters=read_filters(filters) if filters else (),
        timeout_ms=timeout_ms,
        seed=seed,
    )


def _settings(traffic: "Traffic", workers: int) -> dict[str, object]:
    return {"workers": workers, **traffic.model_dump(mode="json")}
