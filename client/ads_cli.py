"""The commands `hlm ads`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from client.cli import DEFAULT_ADMIN_URL, AdminUrl

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.ads import Report

app = typer.Typer(help="Change the ads of a running service, through its admin listener.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
AdIds = Annotated[list[str], typer.Argument(metavar="AD_ID...", help="One or more ads.")]
AdId = Annotated[str, typer.Argument(metavar="AD_ID", help="The ad.")]


@app.command()
def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ads, one a line, gzip or not; - for standard input.")],
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Write ads anew from a feed: those that there are, and those that are new.

    Ads that are not in the feed stay. A bad line is named and harms no other.
    What may not have arrived is sent again, and the whole command may be:
    ads that are as they were change nothing.
    HLM_ADMIN_TOKEN must hold the token that the service was started with.

    Examples:
      hlm ads put ads.jsonl.gz
      jq -c 'select(.bid > 1)' ads.jsonl | hlm ads put -
      hlm ads put ads.jsonl --json | jq .failed_count

    Exit codes:
      0  every line is applied and durable
      1  some lines failed, or the service did not take them, with one sentence
      2  wrong usage
    """
    from client.ads import AdsClient
    from client.errors import ClientError
    from client.feed import read_pieces
    from client.screen import show_failures, show_report, writing

    with AdsClient(admin_url) as client, writing(file) as on_piece:
        report = client.put(read_pieces(file), on_piece)
    show_report(report, as_json=as_json)
    if report.failed_count:
        show_failures(report)
        raise ClientError(f"{report.failed_count:,} of {report.applied + report.failed_count:,} lines failed")


@app.command()
def delete(ad_ids: AdIds, admin_url: AdminUrl = DEFAULT_ADMIN_URL, as_json: AsJson = False) -> None:
    """Remove ads. One that there is not is no error.

    Examples:
      hlm ads delete hd-1 hd-2

    Exit codes:
      0  there are no such ads any more
      1  the service did not take one, with one sentence that says why, and
         that those named before it are removed
      2  wrong usage
    """
    from client.ads import AdsClient

    with AdsClient(admin_url) as client:
        _change_each(ad_ids, client.delete, as_json)


@app.command()
def pause(ad_ids: AdIds, admin_url: AdminUrl = DEFAULT_ADMIN_URL, as_json: AsJson = False) -> None:
    """Stop showing ads, until they are resumed.

    Examples:
      hlm ads pause hd-1
      hlm ads pause hd-1 hd-2 --json

    Exit codes:
      0  no search finds them any more
      1  some are not there, and the others are paused; or the service did not
         take one, and those named before it are paused; one sentence says which
      2  wrong usage
    """
    _patch_ads(ad_ids, {"status": "paused"}, admin_url, as_json)


@app.command()
def resume(ad_ids: AdIds, admin_url: AdminUrl = DEFAULT_ADMIN_URL, as_json: AsJson = False) -> None:
    """Show ads again that were paused.

    Their campaign may still keep them from being shown.

    Examples:
      hlm ads resume hd-1

    Exit codes:
      0  done
      1  some are not there, and the others are resumed; or the service did not
         take one, and those named before it are resumed; one sentence says which
      2  wrong usage
    """
    _patch_ads(ad_ids, {"status": "active"}, admin_url, as_json)


@app.command(context_settings={"ignore_unknown_options": True})  # -3 is a wrong bid and no option
def bid(
    ad_id: AdId,
    amount: Annotated[float | None, typer.Argument(metavar="AMOUNT", min=0, help="The new bid.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Remove the bid.")] = False,
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Change what an ad offers.

    Examples:
      hlm ads bid hd-1 0.45
      hlm ads bid hd-1 --none

    Exit codes:
      0  done
      1  there is no such ad, or the service did not take it; one sentence says
      2  wrong usage
    """
    if (amount is None) != none:
        raise typer.BadParameter("give either an amount or --none")
    _patch_ads([ad_id], {"bid": amount}, admin_url, as_json)


@app.command()
def campaign(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN_ID", help="The campaign.")],
    status: Annotated[str | None, typer.Option(help="Its ads are shown while it is `active`.")] = None,
    budget: Annotated[Literal["available", "exhausted"] | None, typer.Option(help="Whether there is any left.")] = None,
    pass_through_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the requests that its ads take part in.")
    ] = None,
    patch: Annotated[
        str | None, typer.Option(metavar="JSON", help="Further fields, such as hours or negative_keywords.")
    ] = None,
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Change what holds for all ads of a campaign. What is left out stays.

    Examples:
      hlm ads campaign c-17 --budget exhausted
      hlm ads campaign c-17 --status paused
      hlm ads campaign c-17 --pass-through-rate 0.3
      hlm ads campaign c-17 --patch '{"negative_keywords": ["free", "second hand"]}'

    Exit codes:
      0  done
      1  the service did not take it, with one sentence that says why
      2  wrong usage
    """
    from client.ads import AdsClient
    from client.screen import show_report

    given = {"status": status, "budget": budget, "pass_through_rate": pass_through_rate}
    fields = _parse_patch(patch) | {name: value for name, value in given.items() if value is not None}
    if not fields:
        raise typer.BadParameter("give at least one of --status, --budget, --pass-through-rate, --patch")
    with AdsClient(admin_url) as client:
        show_report(client.patch_campaign(campaign_id, fields), as_json=as_json)


@app.command()
def show(ad_id: AdId, admin_url: AdminUrl = DEFAULT_ADMIN_URL) -> None:
    """Print what the service's record says of an ad, as JSON, less its embedding.

    Examples:
      hlm ads show hd-1 | jq .ad.status

    Exit codes:
      0  shown
      1  there is no such ad, or the service did not say; one sentence says
      2  wrong usage
    """
    from client.ads import AdsClient

    with AdsClient(admin_url) as client:
        typer.echo(client.show(ad_id))


@app.command()
def tail(
    since: Annotated[
        int | None, typer.Option(min=0, help="Sequence number to go on from; by default that of the last change.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for further changes.")] = True,
    admin_url: AdminUrl = DEFAULT_ADMIN_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print each change as a line of JSON.")] = False,
) -> None:
    """Print what changes, a line each, until it is interrupted.

    Of an ad that changes often, only the last change may be seen.

    Examples:
      hlm ads tail
      hlm ads tail --since 4711 --no-follow --json > changes.jsonl

    Exit codes:
      0    all changes are printed (with --no-follow)
      1    the service did not answer, with one sentence that says why
      2    wrong usage
      130  interrupted
    """
    from client.ads import WAIT_MS, AdsClient
    from client.screen import change_line, show_incomplete

    with AdsClient(admin_url) as client:
        after = client.changes(0).last if since is None else since
        while True:
            found = client.changes(after, wait_ms=WAIT_MS if follow else 0)
            if not found.complete:
                show_incomplete(after)
            for change in found.changes:
                typer.echo(change_line(change, as_json=as_json))
            after = found.sequence
            if not follow and after >= found.last:
                return


def _patch_ads(ad_ids: list[str], patch: dict[str, object], admin_url: str, as_json: bool) -> None:
    from client.ads import AdsClient

    with AdsClient(admin_url) as client:
        _change_each(ad_ids, lambda ad_id: client.patch_ad(ad_id, patch), as_json)


def _change_each(ad_ids: list[str], change: "Callable[[str], Report]", as_json: bool) -> None:
    """Change ads one by one, and show what became of them as of one."""
    from client.ads import change_each
    from client.errors import ClientError
    from client.screen import describe_unknown, show_report

    report = change_each(ad_ids, change)
    show_report(report, as_json=as_json)
    if report.failed:
        raise ClientError(describe_unknown(report))


def _parse_patch(text: str | None) -> dict[str, Any]:
    import json

    try:
        fields = {} if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--patch is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise typer.BadParameter("--patch: expected a JSON object")
    return fields
