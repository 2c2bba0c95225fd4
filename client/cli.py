"""The commands `hlm query` and `hlm evaluate`."""

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
