"""Where a run's results lie, and how a phase finds that it has nothing to do.

A recipe's directory, `var/runs/NAME`, holds

    tuned/            checkpoint, after phase 1, at its full width
    teacher/          the same cut to the length of the embedding space
    ads/              the teacher's embeddings of all ads, and these ads as one feed
    queries/          the teacher's embeddings of the unlabelled queries
    train-queries/    the teacher's embeddings of the labelled ones
    aligned/STUDENT/  checkpoint, after phase 2
    refined/STUDENT/  checkpoint, after phase 3
    joint/            the query encoder of the arm without alignment
    joint-ads-encoder/, joint-ads/  the other half of that pair, and its embeddings of all ads
    exported/NAME-PRECISION/  the teacher and each student as encoder artifacts
    release/          the encoder that is to be served, and the index
    evaluation/       reports, tables and the picture

Each is an artifact: written aside and renamed, with a manifest whose fingerprint covers all that went into it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer

from artifacts.manifest import MANIFEST_NAME, Manifest, Precision
from artifacts.space import EmbeddingSpace
from artifacts.store import (
    ManifestT,
    describe_files,
    file_sha256,
    fingerprint,
    is_current,
    load_manifest,
    publish,
    save_manifest,
    tool_versions,
)
from cores import usable_cores
from export.onnx_graph import SPACE_NAME
from index.work import drop_leftovers, work_directory
from terminal import console
from train.data import FEED_NAME
from train.descent import LOG_NAME
from train.encoders import save_encoder
from train.errors import TrainError
from train.recipe import Data, Recipe, find_recipe, read_source, recipe_of

FORMAT = 3
"""Part of every fingerprint; raised when the same inputs come to give another result, beyond rounding."""
TOOLS = ("numpy", "sentence-transformers", "tokenizers", "torch", "transformers")


class CheckpointManifest(Manifest):
    """Manifest of a trained checkpoint, beside the weights."""

    kind: Literal["checkpoint"] = "checkpoint"
    measures: dict[str, float]
    """What was measured on held-out queries at the end of the phase."""


class EmbeddingsManifest(Manifest):
    """Manifest of `embeddings.npy`, float16 of shape (count, dim), and what was embedded."""

    kind: Literal["embeddings"] = "embeddings"
    count: int


@dataclass(frozen=True)
class Run:
    """A recipe and the directory of its results."""

    recipe: Recipe
    directory: Path
    others: tuple[Path, ...] = ()
    """Directories of runs whose results are taken where they are what this one would make."""

    @classmethod
    def open(cls, name: str, runs: Path) -> "Run":
        """Read a recipe by name or path; its results belong under `runs`, in a directory of the recipe's name.

        Raises:
            TrainError: there is no such recipe, or it is not valid.
        """
        source = read_source(find_recipe(name))
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
        return cls(recipe_of(source), runs / source.path.stem, tuple(runs / base for base in source.bases))

    @classmethod
    def open_arms(cls, name: str, runs: Path) -> "dict[str, Run]":
        """Read all arms of a sweep; each takes what it can from the bases and from the arms before it.

        Raises:
            TrainError: there is no such recipe, it has no arms, or one is not valid.
        """
        source = read_source(find_recipe(name))
        if not source.arms:
            raise TrainError(f"{source.path}: has no `arms`; expected a sweep")
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
        arms: dict[str, Run] = {}
        others = tuple(runs / base for base in source.bases)
        for arm in source.arms:
            arms[arm] = cls(recipe_of(source, arm), runs / source.path.stem / arm, others)
            others = (*others, arms[arm].directory)
        return arms

    @property
    def tuned(self) -> Path:
        """The teacher's checkpoint at full width."""
        return self.directory / "tuned"

    @property
    def teacher(self) -> Path:
        """The teacher's checkpoint, which defines the embedding space."""
        return self.directory / "teacher"

    @property
    def ads(self) -> Path:
        """The ads' embeddings."""
        return self.directory / "ads"

    @property
    def train_queries(self) -> Path:
        """The labelled queries' embeddings, from which phase 3 mines."""
        return self.directory / "train-queries"

    @property
    def queries(self) -> Path:
        """The unlabelled queries' embeddings."""
        return self.directory / "queries"

    def aligned(self, student: str) -> Path:
        """A student's checkpoint after phase 2."""
        return self.directory / "aligned" / student

    def refined(self, student: str) -> Path:
        """A student's checkpoint after phase 3."""
        return self.directory / "refined" / student

    @property
    def joint(self) -> Path:
        """The query encoder that learnt without alignment."""
        return self.directory / "joint"

    @property
    def joint_ads_encoder(self) -> Path:
        """The ad encoder that learnt with it."""
        return self.directory / "joint-ads-encoder"

    @property
    def joint_ads(self) -> Path:
        """The ads' embeddings by that."""
        return self.directory / "joint-ads"

    @property
    def exports(self) -> list[tuple[str, Precision]]:
        """Name and precision of all encoders that are exported: nothing where the recipe serves nothing."""
        if self.recipe.serving is None:
            return []
        names = ["teacher", *(student.name for student in self.recipe.students)]
        precisions: tuple[Precision, ...] = tuple(dict.fromkeys(("fp32", self.recipe.serving.precision)))
        return [(name, precision) for name in names for precision in precisions]

    def exported(self, name: str, precision: Precision) -> Path:
        """The encoder artifact of the teacher or a student."""
        return self.directory / "exported" / f"{name}-{precision}"

    @property
    def encoder(self) -> Path:
        """The encoder artifact that is to be served."""
        return self.directory / "release" / "encoder"

    @property
    def index(self) -> Path:
        """The index artifact that is to be served."""
        return self.directory / "release" / "index"

    @property
    def evaluation(self) -> Path:
        """Reports and tables."""
        return self.directory / "evaluation"

    def final(self, student: str) -> Path:
        """The last checkpoint of a student by the recipe, or of the teacher."""
        if student == "teacher":
            return self.teacher
        return self.refined(student) if self.recipe.student(student).refine else self.aligned(student)


@contextmanager
def phase(run: Run, target: Path, kind: type[Manifest], key: str) -> Iterator[Path | None]:
    """Yield a work directory that outlives a kill, or None where `target` already is what these inputs give.

    What another run has made of the same inputs is linked to.
    """
    take(run, target, kind, key)
    if is_current(target, kind, key):
        drop_leftovers(target)
        console.print(f"{target}: up to date", markup=False, soft_wrap=True)
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(target, key) as work:
        yield work


def take(run: Run, target: Path, kind: type[Manifest], key: str) -> None:
    """Make `target` a link to the same result of another run, if there is one; a link to anything else goes."""
    if is_current(target, kind, key):
        return
    if target.is_symlink():
        target.unlink()
    for other in run.others:
        made = other / target.relative_to(run.directory)
        if not target.exists() and is_current(made, kind, key):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.path.relpath(made.resolve(), target.parent.resolve()))


def publish_checkpoint(
    encoder: SentenceTransformer,
    target: Path,
    key: str,
    work: Path,
    *,
    space_of: Callable[[Path], EmbeddingSpace],
    measures: dict[str, float],
) -> None:
    """Publish the result of a phase: a checkpoint that `hlm export` takes, with its log and manifest.

    Args:
        encoder: to be saved.
        target: of the phase.
        key: its fingerprint.
        work: where its logs are.
        space_of: the embedding space of the checkpoint in the given directory.
        measures: for the manifest.
    """
    with publish(target) as staging:
        save_encoder(encoder, staging)
        space = space_of(staging)
        (staging / SPACE_NAME).write_text(f"{space.model_dump_json(indent=2)}\n", encoding="utf-8")
        for log in sorted(work.rglob(LOG_NAME)):
            shutil.copyfile(log, staging / "-".join(log.relative_to(work).parts))
        files = describe_files(staging)
        tools = tool_versions(TOOLS)
        save_manifest(
            staging, CheckpointManifest(fingerprint=key, space=space, files=files, tools=tools, measures=measures)
        )
    shown = "".join(f", {name} {value:.4f}" for name, value in measures.items())
    console.print(f"{target}: done{shown}", markup=False, soft_wrap=True)


def load_finished(directory: Path, kind: type[ManifestT], command: str) -> ManifestT:
    """Manifest of an earlier phase's result.

    Raises:
        TrainError: that phase has not been run.
    """
    if not (directory / MANIFEST_NAME).is_file():
        raise TrainError(f"{directory}: not there yet; run `hlm train {command}` with this recipe first")
    return load_manifest(directory, kind)


def weights_hash(directory: Path) -> str:
    """Hash of all weights of a checkpoint."""
    return fingerprint({path.name: file_sha256(path) for path in directory.rglob("*.safetensors")})


def labelled_hashes(data: Data) -> dict[str, str]:
    """SHA-256 of every file that labelled training reads.

    Raises:
        TrainError: one is missing.
    """
    directories = dict.fromkeys([*data.train, *data.dev])
    paths = [directory / FEED_NAME for directory in directories] + data.more_ads
    paths += [directory / f"{kind}.train.tsv" for directory in data.train for kind in ("queries", "qrels")]
    paths += [data.ad_expansions] if data.ad_expansions else []
    return {str(path): file_hash(path) for path in paths}


def file_hash(path: Path) -> str:
    """SHA-256 of a file of the recipe.

    Raises:
        TrainError: it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise TrainError(f"{path}: cannot be read ({error.strerror}); the recipe names it") from error
