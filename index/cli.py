"""`hlm index`: build an index from an ad feed, and look into one."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from index.build import BuildInputs, EncoderInput
    from index.embed import Embedder
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
    backend: Annotated[
        Literal["hnswlib", "faiss"],
        typer.Option(help="Library for graphs. faiss, the extra of that name, takes half the memory."),
    ] = "hnswlib",
    dim: Annotated[
        int | None,
        typer.Option(help="Cut embeddings to this length; only where their space says that it may be done.", min=1),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Directory for a report of the build: summary, and a plot of recall against time."),
    ] = None,
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
      hlm index build --feed ads.jsonl.gz --encoder var/encoders/int8 --backend faiss --out shop

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
    options = BuildOptions(HnswParams(M=m, ef_construction=ef_construction), k, target_recall, strict, backend, dim)
    inputs = replace(inputs, queries=queries, campaigns=campaigns)
    if report is not None:
        from index.build_report import write_report  # before the build, in case that its package is missing
    result = build_index(inputs, out, options, force=force)
    show_build(result, out)
    if report is not None:
        write_report(result, report)


@app.command()
def tune(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Queries to measure recall with: query_id<TAB>text under a header, or one a line. Without them those"
            " that the index was tuned on before.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="Encoder artifact, for --queries.")] = None,
    target_recall: Annotated[
        float | None, typer.Option(help="Least ann_recall@k to accept; as before if not given.", min=0, max=1)
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="k of the recall to reach; as before if not given.", min=1, max=1000)
    ] = None,
) -> None:
    """Choose the ef_search of each segment anew, for another recall or other queries.

    No graph is built again: the index is published as before with another manifest, at once and whole.
    A service that is to use it has to load it, for example as a release of another name.

    Examples:
      hlm index tune var/indexes/shop --target-recall 0.99
      hlm index tune var/indexes/shop --queries q.tsv --encoder var/encoders/int8

    Exit codes:
      0  tuned
      1  failed, or out of reach, with one sentence that says why; the index is as it was
      2  wrong usage
    """
    from index.measure import retune
    from index.report import show_index

    if (queries is None) != (encoder is None):
        raise typer.BadParameter("--queries and --encoder are given together")
    embedder = None if encoder is None else _embedder_for(directory, encoder)
    show_index(retune(directory, queries=queries, embedder=embedder, k=k, target=target_recall), directory)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    min_recall: Annotated[
        float | None,
        typer.Option(help="Least ann_recall@k of each segment; what it was built for if not given.", min=0, max=1),
    ] = None,
) -> None:
    """Check that an index is whole, and finds as much as it says.

    Every file is compared with its hash, and the recall of each segment measured again with the queries that it was
    tuned on.

    Examples:
      hlm index verify var/indexes/shop
      hlm index verify var/indexes/shop --min-recall 0.95

    Exit codes:
      0  whole, and recall is reached
      1  damaged, or recall is missed, with one sentence that says what
      2  wrong usage
    """
    from index.measure import check_recall, verify_index
    from index.report import show_measured

    manifest, measured = verify_index(directory)
    show_measured(manifest, measured, directory)
    check_recall(manifest, measured, manifest.recall.target if min_recall is None else min_recall)


@app.command()
def rebuild(
    record: Annotated[Path, typer.Argument(help="Record of the ads (release.record).", exists=True, dir_okay=False)],
    index: Annotated[
        Path, typer.Argument(help="Index artifact that it began with; its manifest and sampled queries are read.")
    ],
) -> None:
    """Build the graphs of a live index anew from its record, and nothing else, as its next snapshot.

    For when its snapshots are damaged, or after very many changes while it was not served.
    A service takes the snapshot up with its next start.

    Examples:
      hlm index rebuild var/records/shop.db var/indexes/shop

    Exit codes:
      0  a snapshot was written
      1  failed, with one sentence that says why
      2  wrong usage
    """
    from cores import usable_cores
    from index.merge import merge

    manifest = merge(record, index, rebuild=True, threads=usable_cores())
    typer.echo(f"{manifest.index_version}: {manifest.ad_count:,} ads, changes up to number {manifest.sequence:,}")


@app.command()
def inspect(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    record: Annotated[
        Path | None,
        typer.Option(help="Record that changes its ads: shows the newest snapshot, and what came since.", exists=True),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what an index holds: ads, segments, recall, tombstones, sizes, age, and what its feed left out.

    Compares no hashes; `hlm index verify` does.

    Examples:
      hlm index inspect var/indexes/shop
      hlm index inspect var/indexes/shop --record var/records/shop.db
      hlm index inspect var/indexes/shop --json | jq .segments[0].curve

    Exit codes:
      0  shown
      1  no index there, or not readable, with one sentence that says why
      2  wrong usage
    """
    from artifacts.manifest import IndexManifest
    from artifacts.store import load_manifest
    from index.record_reader import RecordReader
    from index.report import show_index
    from index.snapshots import Snapshots

    last_sequence = None
    if record is not None:
        directory = next(iter(Snapshots(record).newest_first()), directory)
        with contextlib.closing(RecordReader(record)) as reader:
            last_sequence = reader.sequence
    manifest = load_manifest(directory, IndexManifest)
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        show_index(manifest, directory, last_sequence=last_sequence)


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


def _embedder_for(directory: Path, encoder: Path) -> "Embedder":
    """An encoder for queries to an index.

    Raises:
        QuerySampleError: its embeddings cannot be compared with those of the index.
    """
    from artifacts.manifest import IndexManifest
    from artifacts.store import load_manifest
    from index.errors import QuerySampleError

    opened = _encoder_input(encoder)
    ours, theirs = opened.manifest.space.space_id, load_manifest(directory, IndexManifest).space.space_id
    if ours != theirs:
        raise QuerySampleError(f"{encoder}: embeds into space {ours}, and index {directory} is of space {theirs}")
    return opened.load()


def _encoder_input(directory: Path) -> "EncoderInput":
    from artifacts.manifest import EncoderManifest
    from artifacts.store import load_manifest
    from index.build import EncoderInput

    def load() -> "Encoder":
        from service.encoder import Encoder

        return Encoder.load(directory)[0]

    return EncoderInput(load_manifest(directory, EncoderManifest), load)
