"""Phase 3: the student alone learns from graded pairs, against ad embeddings that stay as the teacher made them.

hlm train refine RECIPE [--student NAME]
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from artifacts.store import fingerprint
from train.align import held_out_cosines, read_queries
from train.contrast import contrast, pair_batch
from train.data import LabelledQueries, plan_pair_batches, read_inventory, read_split, relevant_pairs
from train.descent import descend
from train.embeddings import embed_with_teacher, open_embeddings, read_embeddings
from train.encoders import Embeddings, embed, embed_all, load_encoder
from train.errors import TrainError
from train.losses import squared_distance
from train.mine import judged_negatives, mine_negatives
from train.recipe import Refinement, Side, Student
from train.runs import (
    FORMAT,
    CheckpointManifest,
    EmbeddingsManifest,
    Run,
    labelled_hashes,
    load_finished,
    phase,
    publish_checkpoint,
)


def refine_student(run: Run, student: Student) -> None:
    """Run phase 3 for one student, unless its result is there already.

    Raises:
        HlmError: an earlier phase is missing, or the recipe does not refine this student.
    """
    recipe, settings = run.recipe, student.refine
    if settings is None:
        raise TrainError(f"{student.name}: has no part `refine` in its recipe")
    aligned = load_finished(run.aligned(student.name), CheckpointManifest, f"align --student {student.name}")
    embedded = load_finished(run.ads, EmbeddingsManifest, "embed-ads")
    key = fingerprint(
        {
            "format": FORMAT,
            "phase": "refine",
            "seed": recipe.seed,
            "aligned": aligned.fingerprint,
            "ads": embedded.fingerprint,
            "settings": settings,
            "data": labelled_hashes(recipe.data),
        }
    )
    with phase(run, run.refined(student.name), CheckpointManifest, key) as work:
        if work is None:
            return
        # The student, and everything else as embeddings: no ad is encoded here.
        torch.manual_seed(recipe.seed)
        inventory = read_inventory(recipe.data)
        labelled = read_split(recipe.data.train, "train", inventory)
        embed_with_teacher(run, run.train_queries, labelled.texts, recipe.query)
        queries, ads = read_embeddings(run.train_queries), read_embeddings(run.ads)
        lesson = _Lesson(settings, labelled, inventory.texts, queries, ads)
        encoder = load_encoder(str(run.aligned(student.name)))

        # Rounds: the first with the teacher's negatives, the others with what the student itself confuses.
        for number in range(settings.rounds):
            if number:
                queries = embed_all(encoder, labelled.texts, recipe.query, "Embedding queries to mine")
            directory = work / f"round-{number + 1}"
            directory.mkdir(exist_ok=True)
            label = f"Refine {student.name}, round {number + 1}"
            negatives = lesson.negatives(queries, recipe.seed + number)
            _round(encoder, lesson, negatives, recipe.query, recipe.seed + number, directory, label)
        measures = held_out_cosines(encoder, read_queries(run), open_embeddings(run.queries), run)
        publish_checkpoint(
            encoder, run.refined(student.name), key, work, space_of=lambda _: aligned.space, measures=measures
        )


@dataclass(frozen=True)
class _Lesson:
    """What a student is refined on."""

    settings: Refinement
    labelled: LabelledQueries
    ad_texts: list[str]
    teacher_queries: Embeddings
    """The teacher's embeddings of the labelled queries, (n, dim)."""
    ads: Embeddings
    """Of the whole inventory, (m, dim)."""

    def negatives(self, queries: Embeddings, seed: int) -> NDArray[np.int64]:
        """Rows of the ads that each query, embedded as (n, dim), is to be told from; shape (n, k)."""
        loss = self.settings.loss
        if not loss.hard_negatives or loss.negatives_from == "judged":
            return judged_negatives(self.labelled, len(self.ads), count=loss.hard_negatives, seed=seed)
        return mine_negatives(self.labelled, queries, self.ads, count=loss.hard_negatives, band=loss.band, seed=seed)


def _round(
    encoder: SentenceTransformer,
    lesson: _Lesson,
    negatives: NDArray[np.int64],
    side: Side,
    seed: int,
    work: Path,
    label: str,
) -> None:
    """Train with one set of negatives."""
    settings, optimisation = lesson.settings, lesson.settings.optimisation
    epochs = optimisation.epochs / settings.rounds
    batches = plan_pair_batches(relevant_pairs(lesson.labelled), optimisation.batch_size, epochs, seed)

    def step_loss(step: int) -> float:
        batch = pair_batch(batches[step], lesson.labelled, lesson.ad_texts, negatives)
        queries = embed(encoder, batch.queries, side)
        own, wrong = (torch.from_numpy(lesson.ads[rows]).to(queries.device) for rows in (batch.rows, batch.negatives))
        loss = contrast(batch, settings.loss, queries, own, wrong)
        if settings.anchor:
            wanted = torch.from_numpy(lesson.teacher_queries[[pair.query for pair in batches[step]]])
            loss = loss + settings.anchor * squared_distance(queries, wanted.to(queries.device))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    descend(encoder, step_loss, len(batches), optimisation, work, label)
