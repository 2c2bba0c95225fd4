"""`hlm export`: make an encoder artifact from a checkpoint."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[
        str, typer.Argument(help="Hub id, local directory, or 'demo': all-MiniLM-L6-v2 from the package of that name.")
    ],
    out: Annotated[Path, typer.Option(help="Directory of the artifact; replaced whole, and only by a good export.")],
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="int8 is for CPUs, fp16 for GPUs, fp32 for comparison.")
    ] = "int8",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    max_query_tokens: Annotated[int, typer.Option(help="Longer queries are cut.", min=8)] = 64,
    max_ad_tokens: Annotated[int, typer.Option(help="Longer ad texts are cut.", min=8)] = 256,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Queries to measure parity with: one a line, or a table with a column `text`. Without them 1,000"
            " product searches that are part of this program.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Ads to search for parity: a feed of JSON lines, or one text a line. Without them product titles"
            " that are part of this program.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option(
            help="Least overlap of the exact top 100 to accept; each precision has its default.", min=0, max=1
        ),
    ] = None,
    execution_provider: Annotated[
        Literal["cpu", "cuda", "tensorrt"] | None,
        typer.Option(
            help="What it is to run on; by default cuda for fp16, else cpu. tensorrt leaves the graph as TensorRT wants"
            " it, and builds the engine here, on the GPU that it is for."
        ),
    ] = None,
    max_batch_size: Annotated[
        int, typer.Option(help="For tensorrt: `batching.max_batch_size` of the service.", min=1, max=1_024)
    ] = 64,
    force: Annotated[bool, typer.Option("--force", help="Export even where nothing has changed.")] = False,
) -> None:
    """Export a checkpoint to an encoder artifact: one ONNX graph, tokenizer, manifest, parity report.

    Does nothing where the artifact already is what these inputs give.
    Publishes nothing where the result differs too much from the PyTorch original.

    Examples:
      hlm export demo --out var/encoders/minilm-int8
      hlm export intfloat/e5-small-v2 --precision fp16 --out var/encoders/e5
      hlm export var/runs/student --out var/encoders/s --min-overlap 0.95
      hlm export demo --precision fp16 --execution-provider tensorrt --out var/encoders/minilm-trt

    Exit codes:
      0  exported, or up to date
      1  failed, or parity missed, with one sentence that says why
      2  wrong usage
    """
    from artifacts.manifest import EncoderManifest
    from artifacts.store import is_current
    from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, MIN_OVERLAP, ExportOptions, export_fingerprint
    from export.source import ExportError, resolve
    from terminal import console

    if precision == "int8" and execution_provider not in {None, "cpu"}:
        raise ExportError("int8 is for CPUs: give --precision fp16 with --execution-provider cuda or tensorrt")
    options = ExportOptions(
        precision=precision,
        max_query_tokens=max_query_tokens,
        max_ad_tokens=max_ad_tokens,
        min_overlap=MIN_OVERLAP[precision] if min_overlap is None else min_overlap,
        queries=queries or DEFAULT_QUERIES,
        corpus=corpus or DEFAULT_CORPUS,
        for_tensorrt=execution_provider == "tensorrt",
    )
    source = resolve(model, revision)
    if not force and is_current(out, EncoderManifest, export_fingerprint(source, options)):
        console.print(f"{out}: up to date", markup=False)
    else:
        try:
            from export.publish import export_encoder  # loads torch
        except ImportError as error:
            raise ExportError(f"The package {error.name} is missing; install the extra `offline` to export") from error

        manifest = export_encoder(source, options, out)
        console.print(f"{out}: {manifest.model_version}, space {manifest.space.space_id}", markup=False, soft_wrap=True)
    if options.for_tensorrt:
        from export.engines import build_engines

        build_engines(out, max_batch_size)
