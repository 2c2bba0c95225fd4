"""From a run to what is served: checkpoints become encoder artifacts, the ads' embeddings an index."""

from pathlib import Path

from artifacts.manifest import EncoderManifest, Precision
from artifacts.store import is_current, load_manifest
from export.onnx_graph import SPACE_NAME
from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, MIN_OVERLAP, ExportOptions, export_fingerprint
from export.publish import export_encoder
from export.source import resolve
from index.build import BuildInputs, BuildOptions, EncoderInput, build_index
from index.report import show_build
from index.vectors import read_space
from service.encoder import Encoder
from terminal import console
from train.data import FEED_NAME
from train.embeddings import EMBEDDINGS_NAME
from train.errors import TrainError
from train.runs import CheckpointManifest, Run, load_finished


def make_release(run: Run) -> None:
    """Export the teacher and all students, the one that the recipe serves under its bound, and index the ads.

    The index is made from the teacher's embeddings, and its recall is measured with the served student's queries.

    Raises:
        HlmError: the recipe serves none, a phase is missing, or an artifact misses its bound.
    """
    serving = run.recipe.serving
    if serving is None:
        raise TrainError("the recipe has no part `serving`, which says what is to be exported")
    bound = MIN_OVERLAP[serving.precision] if serving.min_overlap is None else serving.min_overlap
    for name, precision in run.exports:
        target = run.exported(name, precision)
        _export(run, name, precision, bound if target == run.encoder else 0, target)
    opened = EncoderInput(load_manifest(run.encoder, EncoderManifest), lambda: Encoder.load(run.encoder)[0])
    space = read_space(run.ads / SPACE_NAME)
    inputs = BuildInputs(run.ads / FEED_NAME, space, opened, run.ads / EMBEDDINGS_NAME)
    show_build(build_index(inputs, run.index, BuildOptions()), run.index)
    command = f"hlm serve --name {run.directory.name} --encoder {run.encoder} --index {run.index}"
    console.print(command, markup=False, soft_wrap=True)


def _export(run: Run, name: str, precision: Precision, min_overlap: float, target: Path) -> None:
    """Export the teacher or a student, unless `target` already is that."""
    load_finished(run.final(name), CheckpointManifest, "run")
    source = resolve(str(run.final(name)))
    options = ExportOptions(
        precision=precision,
        max_query_tokens=run.recipe.query.max_tokens,
        max_ad_tokens=run.recipe.ad.max_tokens,
        min_overlap=min_overlap,
        queries=DEFAULT_QUERIES,
        corpus=DEFAULT_CORPUS,
    )
    if not is_current(target, EncoderManifest, export_fingerprint(source, options)):
        export_encoder(source, options, target)
