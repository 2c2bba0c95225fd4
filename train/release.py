"""From a run to what is served: the student's checkpoint becomes an encoder artifact, the ads' embeddings an index."""

from pathlib import Path

from artifacts.manifest import EncoderManifest
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


def make_release(run: Run) -> tuple[Path, Path]:
    """Export the student that the recipe wants served, and index the ads; returns the two artifacts.

    The index is made from the teacher's embeddings, and its recall is measured with the student's queries.

    Raises:
        HlmError: the recipe serves none, a phase is missing, or an artifact misses its bound.
    """
    serving = run.recipe.serving
    if serving is None:
        raise TrainError("the recipe has no part `serving`, which says what is to be exported")
    checkpoint = run.final(serving.student)
    load_finished(checkpoint, CheckpointManifest, "align")
    source = resolve(str(checkpoint))
    options = ExportOptions(
        precision=serving.precision,
        max_query_tokens=run.recipe.query.max_tokens,
        max_ad_tokens=run.recipe.ad.max_tokens,
        min_overlap=MIN_OVERLAP[serving.precision] if serving.min_overlap is None else serving.min_overlap,
        queries=DEFAULT_QUERIES,
        corpus=DEFAULT_CORPUS,
    )
    encoder, index = run.directory / "release" / "encoder", run.directory / "release" / "index"
    if not is_current(encoder, EncoderManifest, export_fingerprint(source, options)):
        export_encoder(source, options, encoder)
    opened = EncoderInput(load_manifest(encoder, EncoderManifest), lambda: Encoder.load(encoder)[0])
    space = read_space(run.ads / SPACE_NAME)
    inputs = BuildInputs(run.ads / FEED_NAME, space, opened, run.ads / EMBEDDINGS_NAME)
    show_build(build_index(inputs, index, BuildOptions()), index)
    name = run.directory.name
    console.print(f"hlm serve --name {name} --encoder {encoder} --index {index}", markup=False, soft_wrap=True)
    return encoder, index
