"""The commands `hlm query`, `hlm evaluate` and `hlm release`."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str, typer.Option(help="Where the service listens.")]
DEFAULT_URL = "http://127.0.0.1:8080"


def query(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The query, as a user would type it.")],
    url: Url = DEFAULT_URL,
    top_k: Annotated[int, typer.Option(min=1, max=1_000, help="Most ads wanted.")] = 10,
    timeout_ms: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Time budget of the service; by default its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as it came.")] = False,
) -> None:
    """Ask a running service and show the ads it answers with.

    Examples:
      hlm query "cordless drill 18v"
      hlm query "cordless drill 18v" --top-k 3 --url http://127.0.0.1:8090
      hlm query "cordless drill 18v" --json

    Exit codes:
      0  the service answered, if only that it has no ad
      1  it did not, with one sentence that says why
      2  wrong usage
    """
    from client.http import RetrieveClient
    from client.screen import show_answer

    with RetrieveClient(url) as client:
        answer, body = client.retrieve(text, top_k=top_k, timeout_ms=timeout_ms, fields=["title", "advertiser_id"])
    if as_json:
        typer.echo(body)
    else:
        show_answer(answer, top_k)


def evaluate(
    queries: Annotated[Path, typer.Option(help="Tab-separated: query_id, text.")],
    qrels: Annotated[Path, typer.Option(help="Tab-separated: query_id, ad_id, grade.")],
    url: Url = DEFAULT_URL,
    top_k: Annotated[int, typer.Option(min=1, max=1_000, help="Ads asked for; cutoff of recall, precision.")] = 100,
    relevance: Annotated[int, typer.Option(min=1, help="Least grade that counts as relevant.")] = 2,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at a time.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, not as a table.")] = False,
) -> None:
    """Measure a running service's retrieval quality against judgments.

    Recall (R), precision (P) and reciprocal rank (RR) count the queries that
    have an ad of the asked grade; nDCG, with grades as gains, those that have
    an ad above grade 0. An ad without a judgment counts as grade 0; with
    judged_only it is left out of the ranking instead. Where few ads are
    judged, compare figures between systems rather than reading one by itself.

    Examples:
      hlm evaluate --queries queries.dev.tsv --qrels qrels.dev.tsv
      hlm evaluate --queries q.tsv --qrels qrels.tsv --top-k 10 --relevance 1
      hlm evaluate --queries q.tsv --qrels qrels.tsv --out var/reports/dev.json

    Exit codes:
      0  every query was answered
      1  some were not (named; they count as empty answers), or nothing could
         be measured, with one sentence that says why
      2  wrong usage
    """
    from client.errors import ClientError
    from client.evaluate import evaluate_service, save_report
    from client.screen import describe_failures, show_evaluation
    from client.trec import read_qrels, read_queries

    evaluation = evaluate_service(
        url, read_queries(queries), read_qrels(qrels), top_k=top_k, relevance=relevance, concurrency=concurrency
    )
    if as_json:
        typer.echo(evaluation.model_dump_json(indent=2))
    else:
        show_evaluation(evaluation)
    if out:
        save_report(evaluation, out)
    if evaluation.failures:
        raise ClientError(describe_failures(evaluation))


release = typer.Typer(
    help="Change which release a running service answers with, through its admin listener.", no_args_is_help=True
)
AdminUrl = Annotated[str, typer.Option(envvar="HLM_ADMIN_URL", help="Where the service's admin listener is.")]
DEFAULT_ADMIN_URL = "http://127.0.0.1:8081"


@release.command("use")
def use_release(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The release's name, in every answer.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder artifact, a directory where the service runs.")] = None,
    index: Annotated[str | None, typer.Option(help="Index artifact, a directory where the service runs.")] = None,
    record: Annotated[str | None, typer.Option(help="Record of its ads, a file where the service runs.")] = None,
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
) -> None:
    """Load, verify and serve a release; the one before answers until then.

    With directories it is a new release; the one of the two that is left out
    stays as it is served now, an index with its record. With a name alone it is a release that the
    service has already: its canary, its shadow or the previous one.
    A release goes on loading if this command is interrupted.
    HLM_ADMIN_TOKEN must hold the token that the service was started with.

    Examples:
      hlm release use 2026-11-24a --encoder var/encoders/e2 --index var/indexes/i2
      hlm release use 2026-11-24b --index var/indexes/i3
      hlm release use my-canary

    Exit codes:
      0  it is served
      1  it was rejected or could not be asked for; one sentence says why
      2  wrong usage
    """
    from client.release import ReleaseClient
    from client.screen import show_releases
    from terminal import waiting

    with ReleaseClient(admin_url) as client:
        if encoder is None or index is None:
            encoder, index, record = client.status().places(name, encoder, index, record)
        with waiting(f"Loading release {name}: encoder {encoder}, index {index}"):
            releases = client.use(name, encoder, index, record)
    show_releases(releases)


@release.command("rollback")
def rollback_release(admin_url: AdminUrl = DEFAULT_ADMIN_URL) -> None:
    """Serve the previous release again.

    A second rollback is refused rather than undo the first: `hlm release use`
    with the release's name goes forward again.
    HLM_ADMIN_TOKEN must hold the token that the service was started with.

    Examples:
      hlm release rollback

    Exit codes:
      0  it is served
      1  there is none, it was done already, or it could not be asked for,
         with one sentence that says why
      2  wrong usage
    """
    from client.release import ReleaseClient
    from client.screen import show_releases
    from terminal import waiting

    with ReleaseClient(admin_url) as client, waiting("Rolling back to the previous release"):
        releases = client.rollback()
    show_releases(releases)


@release.command("status")
def release_status(
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as it came.")] = False,
) -> None:
    """Show which releases a service has, and as what.

    HLM_ADMIN_TOKEN must hold the token that the service was started with.

    Examples:
      hlm release status
      hlm release status --json --admin-url http://127.0.0.1:8091

    Exit codes:
      0  done
      1  it could not be asked, with one sentence that says why
      2  wrong usage
    """
    from client.release import ReleaseClient
    from client.screen import show_releases

    with ReleaseClient(admin_url) as client:
        releases = client.status()
    if as_json:
        typer.echo(releases.body)
    else:
        show_releases(releases)
