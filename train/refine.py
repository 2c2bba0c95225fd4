"""Phase 3: the student alone learns from graded pairs, against ad embeddings that stay as the teacher made them.

hlm train refine RECIPE [--student NAME]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from artifacts.store import fingerprint
from train.align import held_out_cosines, read_queries
from train.contrast import contrast, pair_batch
from train.data import LabelledQueries, Pair, plan_pair_batches, read_inventory, read_lessons, relevant_pairs
from train.descent import descend
from train.embed_ads import current_ads
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
    inventory = read_inventory(recipe.data)
    embedded = current_ads(run, inventory)
    if aligned.space != embedded.space:
        raise TrainError(f"{run.aligned(student.name)}: is of an earlier teacher; run `hlm train align` again")
    key = refinement_key(run, student, embedded)
    with phase(run, run.refined(student.name), CheckpointManifest, key) as work:
        if work is None:
            return
        # The student, and everything else as embeddings: no ad is encoded here.
        torch.manual_seed(recipe.seed)
        labelled = read_lessons(recipe.data, inventory)
        embed_with_teacher(run, run.train_queries, labelled.texts, recipe.query)
        queries, ads = read_embeddings(run.train_queries), read_embeddings(run.ads)
        lesson = _Lesson(settings, labelled, inventory.texts, queries, ads)
        optimisation = settings.optimisation
        batches = plan_pair_batches(relevant_pairs(labelled), optimisation.batch_size, optimisation.epochs, recipe.seed)
        encoder = load_encoder(str(run.aligned(student.name)))

        # Rounds: the first with the teacher's negatives, the others with what the student itself confuses.
        for number in range(settings.rounds):
            if number:
                queries = embed_all(encoder, labelled.texts, recipe.query, "Embedding queries to mine")
            directory = work / f"round-{number + 1}"
            directory.mkdir(exist_ok=True)
            label = f"Refine {student.name}, round {number + 1}"
            negatives = lesson.negatives(queries, recipe.seed + number)
            _round(encoder, lesson, share(batches, number, settings.rounds), negatives, recipe.query, directory, label)
        measures = held_out_cosines(encoder, read_queries(run), open_embeddings(run.queries), run)
        publish_checkpoint(
            encoder, run.refined(student.name), key, work, space_of=lambda _: aligned.space, measures=measures
        )


def refinement_key(run: Run, student: Student, embedded: EmbeddingsManifest) -> str:
    """Fingerprint of what `refine_student` makes of the aligned student and the ads' embeddings.

    Raises:
        HlmError: the student is not aligned yet, or a file of the recipe is missing.
    """
    command = f"align --student {student.name}"
    return fingerprint(
        {
            "format": FORMAT,
            "phase": "refine",
            "seed": run.recipe.seed,
            "aligned": load_finished(run.aligned(student.name), CheckpointManifest, command).fingerprint,
            "ads": embedded.fingerprint,
            "settings": student.refine,
            "data": labelled_hashes(run.recipe.data),
        }
    )


def share(batches: Sequence[list[Pair]], number: int, rounds: int) -> Sequence[list[Pair]]:
    """The batches of one round, counted from 0, of a plan that all rounds go through once together."""
    return batches[number * len(batches) // rounds : (number + 1) * len(batches) // rounds]


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
    batches: Sequence[list[Pair]],
    negatives: NDArray[np.int64],
    side: Side,
    work: Path,
    label: str,
) -> None:
    """Train with one set of negatives."""
    settings = lesson.settings

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

    descend(encoder, step_loss, len(batches), settings.optimisation, work, label)
