"""`hlm loadtest`: load tests of a running service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from loadtest.result import Result
    from loadtest.traffic import Traffic

app = typer.Typer(help="Test a running service under load; needs the extra `load`.", no_args_is_help=True)

MISSED = 3
UNTRUSTED = 4

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
      1  the test could not be run, with one sentence that says why
      2  wrong usage
      3  an objective was missed
      4  one was missed, but the generator may be what was measured
    """
    from loadtest.load import Load
    from loadtest.measure import Measurement, service_info
    from loadtest.session import session
    from loadtest.slo import parse_slo

    objectives = parse_slo(slo) if slo else []
    traffic = _traffic(queries, zipf, new_share, lengths, top_k, filters, timeout_ms, seed)
    loads = [Load(f"{rate:g}/s", seconds, rate, arrivals) for rate in rates or ([] if users else [100.0])]
    loads += [Load(f"{count} users", seconds, users=count) for count in users or []]
    with session(url, traffic, workers=workers, remote_workers=remote_workers, port=port) as opened:
        measurement = Measurement(opened)
        for load in loads:
            measurement.run(load)
    settings = _settings(traffic, workers + remote_workers)
    _finish(measurement.result("Load test", url, settings, service_info(url)), out, report)
    missed = [miss for phase in measurement.phases for one in objectives if (miss := one.miss(phase))]
    for miss in missed:
        typer.echo(miss, err=True)
    if missed:
        raise typer.Exit(UNTRUSTED if any(phase.generator.limits for phase in measurement.phases) else MISSED)


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

    show_comparison(read_result(one), read_result(other), (one.stem, other.stem))


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


def _finish(result: "Result", out: Path | None, report: Path | None) -> None:
    """Show the result, and write it and a page about it where asked to."""
    from loadtest.screen import show_result, show_written

    show_result(result)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(result.model_dump_json(indent=1))
        show_written(out)
    if report:
        from loadtest.report import write_report

        show_written(write_report(result, report)[0])
