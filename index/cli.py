"""`hlm index`: build an index from an ad feed, and look into one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from index.build import BuildInputs, EncoderInput
    from service.encoder import Encoder

app = typer.Typer(help="Build an ad index, and look into one.", no_args_is_help=True)


@app.command()
def build(
    feed: Annotated[Path, typer.Option(help="Ad feed: JSON lines, gzip or not.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Directory of the index; replaced whole, and only by a finished build.")],
    encoder: Annotated[Path | None, typer.Option(help="Encoder artifact that embeds the ads.")] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="For precomputed embeddings: what they are comparable with. An encoder artifact, which then embeds"
            " the query sample too, or a JSON file with an embedding space.",
            exists=True,
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="With --space: float16 or float32 .npy, row i for line i of the feed. Without it the field"
            " `embedding` of the feed is used.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Queries to measure recall with: query_id<TAB>text under a header, or one a line. Without them ad"
            " titles stand in.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    campaigns: Annotated[
        Path | None,
        typer.Option(
            help="What campaigns say for their ads, JSON lines: campaign_id, status, budget, pass_through_rate,"
            " starts_at, ends_at, hours, negative_keywords.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    target_recall: Annotated[float, typer.Option(help="Least ann_recall@k to accept.", min=0, max=1)] = 0.97,
    k: Annotated[int, typer.Option("--k", help="k of the recall to reach.", min=1, max=1000)] = 100,
    m: Annotated[int, typer.Option("--m", help="Links an ad in the graph.", min=2, max=128)] = 16,
    ef_construction: Annotated[int, typer.Option(help="Breadth of search while building.", min=8, max=4096)] = 200,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad line of the feed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build even where nothing has changed.")] = False,
) -> None:
    """Build an index from an ad feed: embed the ads, link their graphs, choose ef_search by recall, publish.

    The ads of each market and language are a segment of their own; small ones are scanned and need no graph.

    Does nothing where the index already is what these inputs give.
    A build that was stopped, however hard, goes on where it was when it is started again.

    Examples:
      hlm index build --feed ads.jsonl.gz --encoder var/encoders/int8 --out var/indexes/shop
      hlm index build --feed ads.jsonl.gz --encoder var/encoders/int8 --queries q.tsv --out shop
      hlm index build --feed ads.jsonl.gz --space var/encoders/int8 --embeddings ads.npy --out shop

    Exit codes:
      0  built, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    from artifacts.manifest import HnswParams
    from index.build import BuildOptions, build_index
    from index.report import show_build

    if (encoder is None) == (space is None):
        raise typer.BadParameter("give either --encoder, to embed the ads, or --space, with embeddings made before")
    if embeddings is not None and space is None:
        raise typer.BadParameter("--embeddings needs --space")
    inputs = _inputs(feed, encoder, space, embeddings)
    options = BuildOptions(HnswParams(M=m, ef_construction=ef_construction), k, target_recall, strict)
    inputs = replace(inputs, queries=queries, campaigns=campaigns)
    show_build(build_index(inputs, out, options, force=force), out)


@app.command()
def inspect(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what an index holds: ads, segments, recall, sizes, embedding space, and what its feed left out.

    Reads the manifest only.

    Examples:
      hlm index inspect var/indexes/shop
      hlm index inspect var/indexes/shop --json | jq .segments[0].curve

    Exit codes:
      0  shown
      1  no index there, or not readable, with one sentence that says why
      2  wrong usage
    """
    from artifacts.manifest import IndexManifest
    from artifacts.store import load_manifest
    from index.report import show_manifest

    manifest = load_manifest(directory, IndexManifest)
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        show_manifest(manifest, directory)


def _inputs(feed: Path, encoder: Path | None, space: Path | None, embeddings: Path | None) -> "BuildInputs":
    from index.build import BuildInputs
    from index.vectors import read_space

    if encoder is not None:
        opened = _encoder_input(encoder)
        return BuildInputs(feed, opened.manifest.space, opened)
    assert space is not None
    query_encoder = _encoder_input(space) if space.is_dir() else None
    read = query_encoder.manifest.space if query_encoder else read_space(space)
    return BuildInputs(feed, read, query_encoder, embeddings or "feed")


def _encoder_input(directory: Path) -> "EncoderInput":
    from artifacts.manifest import EncoderManifest
    from artifacts.store import load_manifest
    from index.build import EncoderInput

    def load() -> "Encoder":
        from service.encoder import Encoder

        return Encoder.load(directory)[0]

    return EncoderInput(load_manifest(directory, EncoderManifest), load)
