"""Which results of a run are what its recipe, its data and the results before them give now.

Others may lie there still, of a recipe that was changed or a teacher that was trained again, until a phase replaces
them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifacts.manifest import MANIFEST_NAME, EncoderManifest, Precision
from artifacts.store import is_current, load_manifest
from export.options import export_fingerprint
from export.source import resolve
from index.load import FrozenIndex, load_index
from terminal import console
from train.align import alignment_key, read_queries
from train.data import FEED_NAME, Inventory
from train.embeddings import embeddings_key, read_embeddings
from train.encoders import Embeddings
from train.joint import joint_key
from train.refine import refinement_key
from train.release import export_options
from train.runs import CheckpointManifest, EmbeddingsManifest, Run

_SAME = 1e-3
"""Most that a number of an embedding may differ by rounding."""


@dataclass(frozen=True)
class Checkpoint:
    """The teacher, or a student after one of its phases."""

    owner: str
    """`teacher` or the student's name."""
    stage: str
    directory: Path


def checkpoints(run: Run, embedded: EmbeddingsManifest) -> Iterator[Checkpoint]:
    """The teacher, and each student as far as it has come.

    Args:
        run: the recipe and its results, of which the teacher is one.
        embedded: of the present ads.
    """
    yield Checkpoint("teacher", "teacher", run.teacher)
    if not any(has_result(run.aligned(student.name)) for student in run.recipe.students):
        return
    queries, stale = read_queries(run), set()
    for student in run.recipe.students:
        aligned, refined = run.aligned(student.name), run.refined(student.name)
        is_aligned = (
            has_result(aligned)
            and student.start not in stale
            and is_current(aligned, CheckpointManifest, alignment_key(run, student, queries))
        )
        if not is_aligned:
            stale.add(student.name)
        if counts(aligned, is_aligned):
            yield Checkpoint(student.name, f"{student.name}, aligned", aligned)
        is_refined = (
            is_aligned
            and student.refine is not None
            and is_current(refined, CheckpointManifest, refinement_key(run, student, embedded))
        )
        if counts(refined, is_refined):
            yield Checkpoint(student.name, f"{student.name}, refined", refined)


def exports(run: Run, found: Sequence[Checkpoint]) -> Iterator[tuple[str, Precision]]:
    """Owner and precision of what is exported from the last of the present checkpoints, which are given."""
    directories = {one.directory for one in found}
    for name, precision in run.exports:
        exported, final = run.exported(name, precision), run.final(name)
        is_of_final = final in directories and is_current(
            exported, EncoderManifest, export_fingerprint(resolve(str(final)), export_options(run, precision))
        )
        if counts(exported, is_of_final):
            yield name, precision


def index(run: Run, embedded: EmbeddingsManifest, ads: Embeddings) -> FrozenIndex | None:
    """The index of the release, if it is of the present ads and their embeddings, shape (count, dim)."""
    if not has_result(run.index):
        return None
    found = load_index(run.index)
    is_of_ads = (
        found.manifest.space == embedded.space and found.manifest.feed.sha256 == embedded.files[FEED_NAME].sha256
    )
    fits = is_of_ads and np.allclose(found.vectors, ads, atol=_SAME)
    return found if counts(run.index, fits) else None


def joint_ads(run: Run, inventory: Inventory) -> Embeddings | None:
    """The ads' embeddings by the arm without alignment, if the recipe has it and both halves are there."""
    settings, directory, encoder = run.recipe.joint, run.joint_ads, run.joint_ads_encoder
    if settings is None or not (has_result(directory) and has_result(encoder)):
        return None
    key = joint_key(run.recipe, settings)
    made = load_manifest(encoder, CheckpointManifest)
    is_whole = (
        made.fingerprint == key
        and is_current(run.joint, CheckpointManifest, key)
        and is_current(directory, EmbeddingsManifest, embeddings_key(made, inventory.texts, run.recipe.ad))
    )
    return read_embeddings(directory) if counts(directory, is_whole) else None


def counts(directory: Path, is_present: bool) -> bool:
    """Whether there is such a result and it is the present one; says so where it is there and is not."""
    if has_result(directory) and not is_present:
        line = f"{directory}: left out, as the recipe, its data and the results before it would give another now"
        console.print(line, markup=False, soft_wrap=True)
    return is_present


def has_result(directory: Path) -> bool:
    """Whether a phase has left its result there."""
    return (directory / MANIFEST_NAME).is_file()
