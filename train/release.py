"""From a run to what is served: checkpoints become encoder artifacts, the ads' embeddings an index."""

import shutil
from pathlib import Path

from artifacts.manifest import EncoderManifest, Precision
from artifacts.store import is_current, load_manifest, publish
from export.onnx_graph import MAX_PARAMETERS, SPACE_NAME
from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, MIN_OVERLAP, ExportOptions, export_fingerprint
from export.publish import export_encoder
from export.source import resolve, stored_parameters
from index.build import BuildInputs, BuildOptions, EncoderInput, build_index
from index.report import show_build
from index.vectors import read_space
from service.encoder import Encoder
from terminal import console
from train.data import FEED_NAME
from train.embeddings import EMBEDDINGS_NAME
from train.errors import TrainError
from train.recipe import Serving
from train.runs import CheckpointManifest, Run, load_finished


def make_release(run: Run) -> None:
    """Export the teacher and all students, the one that the recipe serves under its bound, and index the ads.

    An encoder that is too large for one graph file is left out, as a teacher of billions of parameters is, unless it is
    to be served. The index is made from the teacher's embeddings; the served student embeds the beginnings of titles
    that its recall is measured with.

    Raises:
        HlmError: the recipe serves none, a phase is missing, or an artifact misses its bound.
    """
    serving = run.recipe.serving
    if serving is None:
        raise TrainError("the recipe has no part `serving`, which says what is to be exported")
    for name, precision in run.exports:
        if name != serving.student and (count := stored_parameters(run.final(name))) >= MAX_PARAMETERS:
            line = f"{run.exported(name, precision)}: left out, as {count:,} parameters do not fit one graph file"
            console.print(line, markup=False, soft_wrap=True)
        else:
            _export(run, name, precision)
    _release(run, run.exported(serving.student, serving.precision), serving)
    opened = EncoderInput(load_manifest(run.encoder, EncoderManifest), lambda: Encoder.load(run.encoder)[0])
    space = read_space(run.ads / SPACE_NAME)
    inputs = BuildInputs(run.ads / FEED_NAME, space, opened, run.ads / EMBEDDINGS_NAME)
    show_build(build_index(inputs, run.index, BuildOptions()), run.index)
    command = f"hlm serve --name {run.directory.name} --encoder {run.encoder} --index {run.index}"
    console.print(command, markup=False, soft_wrap=True)


def _export(run: Run, name: str, precision: Precision) -> None:
    """Export the teacher or a student, however far the export is from it, unless that is done already."""
    load_finished(run.final(name), CheckpointManifest, "run")
    source, target, options = (
        resolve(str(run.final(name))),
        run.exported(name, precision),
        export_options(run, precision),
    )
    if not is_current(target, EncoderManifest, export_fingerprint(source, options)):
        export_encoder(source, options, target)


def export_options(run: Run, precision: Precision) -> ExportOptions:
    """How a run's checkpoints are exported: what that loses is measured later, and bounded where it is served."""
    return ExportOptions(
        precision=precision,
        max_query_tokens=run.recipe.query.max_tokens,
        max_ad_tokens=run.recipe.ad.max_tokens,
        min_overlap=0,
        queries=DEFAULT_QUERIES,
        corpus=DEFAULT_CORPUS,
    )


def _release(run: Run, exported: Path, serving: Serving) -> None:
    """Publish an exported encoder as the one that is served, if it is near enough to its checkpoint."""
    manifest = load_manifest(exported, EncoderManifest)
    bound = MIN_OVERLAP[serving.precision] if serving.min_overlap is None else serving.min_overlap
    if (overlap := manifest.parity.overlap_at_100) < bound:
        raise TrainError(
            f"{exported}: its top 100 overlaps that of its checkpoint by {overlap:.4f} where at least {bound:.4f} is"
            " wanted to serve it; nothing was released"
        )
    if not is_current(run.encoder, EncoderManifest, manifest.fingerprint):
        with publish(run.encoder) as staging:
            shutil.copytree(exported, staging, dirs_exist_ok=True)
