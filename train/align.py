"""Phase 2: a small student learns to land where its teacher does, from unlabelled queries alone.

hlm train align RECIPE [--student NAME]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from artifacts.store import fingerprint
from export.source import resolve
from terminal import console
from train.data import plan_query_batches, read_inventory, read_unlabelled, weigh
from train.descent import descend
from train.embed_ads import current_ads
from train.embeddings import embed_with_teacher, open_embeddings, read_embeddings
from train.encoders import (
    Embeddings,
    dense_head,
    embed,
    embed_all,
    fit_head,
    load_encoder,
    pool_all,
    put_head,
)
from train.errors import TrainError
from train.losses import cosine_distance, kernel_distance, score_divergence, squared_distance
from train.prune import choose_layers, keep_layers, keep_units, layers_of, measure_importance
from train.recipe import Student
from train.runs import FORMAT, CheckpointManifest, Run, load_finished, phase, publish_checkpoint

CALIBRATION_QUERIES = 512
"""What layers and inner units are judged by."""
HEAD_QUERIES = 100_000
"""What the dense head is fitted to at most; a thousandfold its inputs is plenty."""
DIVERGENCE_ADS = 8
"""Nearest ads of each query of a batch, by the teacher, over all of which `kl` compares distributions: what lies far
from every query would teach nothing."""
DIVERGENCE_TEMPERATURE = 0.05


@dataclass(frozen=True)
class AlignmentQueries:
    """Distinct unlabelled queries, those that are learnt from and those that are held out."""

    texts: list[str]
    weights: list[float]
    """How often each is taken an epoch; 0 for those held out."""
    held_out: NDArray[np.int64]
    """Positions, never learnt from."""
    learnt: NDArray[np.int64]
    """Positions, in an order by chance."""


def align_student(run: Run, student: Student) -> None:
    """Run phase 2 for one student, unless its result is there already.

    Raises:
        HlmError: an earlier phase or student is missing, or the result is too far from the teacher.
    """
    recipe = run.recipe
    teacher = load_finished(run.teacher, CheckpointManifest, "teacher")
    queries = read_queries(run)
    key = alignment_key(
        run, student, queries
    )  # before the queries are embedded, as it fails where the start is missing
    embed_with_teacher(run, run.queries, queries.texts, recipe.query)
    with phase(run, run.aligned(student.name), CheckpointManifest, key) as work:
        if work is None:
            return
        # A student of the right size, whose head already points at the teacher.
        torch.manual_seed(recipe.seed)
        targets = open_embeddings(run.queries)
        encoder = load_encoder(_start(run, student)[0], student.pooling)
        _prune(encoder, student, [queries.texts[row] for row in queries.learnt[:CALIBRATION_QUERIES]], run)
        _begin_head(encoder, student, queries, targets, run)
        batches = plan_query_batches(
            queries.weights, student.optimisation.batch_size, student.optimisation.epochs, recipe.seed
        )
        distance = _distance(run, student, encoder.device)

        # A step: a batch of queries, and how far they land from where they should.
        def step_loss(step: int) -> float:
            rows = batches[step]
            wanted = torch.from_numpy(targets[rows].astype(np.float32)).to(encoder.device)
            found = embed(encoder, [queries.texts[row] for row in rows], recipe.query)
            loss = distance(found, torch.nn.functional.normalize(wanted, dim=-1))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        # The descent.
        descend(encoder, step_loss, len(batches), student.optimisation, work, f"Align {student.name}")
        measures = held_out_cosines(encoder, queries, targets, run)
        if measures["cosine_mean"] < student.min_cosine:
            raise TrainError(
                f"{student.name}: the mean cosine to the teacher is {measures['cosine_mean']:.4f} where at least"
                f" {student.min_cosine:.4f} is wanted; nothing was published"
            )
        publish_checkpoint(
            encoder, run.aligned(student.name), key, work, space_of=lambda _: teacher.space, measures=measures
        )


def alignment_key(run: Run, student: Student, queries: AlignmentQueries) -> str:
    """Fingerprint of what `align_student` makes of the present teacher and of what the student starts from.

    Raises:
        HlmError: one of them is missing.
    """
    return fingerprint(
        {
            "format": FORMAT,
            "phase": "align",
            "seed": run.recipe.seed,
            "teacher": load_finished(run.teacher, CheckpointManifest, "teacher").fingerprint,
            "start": _start(run, student)[1],
            "student": student.model_dump_json(exclude={"name", "refine"}),
            "side": run.recipe.query,
            "queries": fingerprint({"texts": queries.texts, "weights": queries.weights}),
        }
        | _beside(run, student)
    )


def read_queries(run: Run) -> AlignmentQueries:
    """Read the unlabelled queries of a recipe and hold some out, by query.

    Raises:
        TrainError: the file cannot be used, or has too few queries.
    """
    data = run.recipe.data
    weighed = [(text, weigh(source, data.query_weights)) for text, source in read_unlabelled(data.queries)]
    taken = [(text, weight) for text, weight in weighed if weight]
    order = np.random.default_rng(run.recipe.seed).permutation(len(taken))
    held_out = order[: min(data.held_out_queries, len(taken) // 10)]
    if not len(held_out):
        raise TrainError(f"{data.queries}: has {len(taken)} queries; expected at least 10, to hold one out")
    weights = np.array([weight for _, weight in taken])
    weights[held_out] = 0
    return AlignmentQueries([text for text, _ in taken], weights.tolist(), held_out, order[len(held_out) :])


def held_out_cosines(
    encoder: SentenceTransformer, queries: AlignmentQueries, targets: NDArray[np.float16], run: Run
) -> dict[str, float]:
    """Cosines of a student with its teacher on the queries held out: mean, 5th and 1st percentile."""
    texts = [queries.texts[row] for row in queries.held_out]
    found = embed_all(encoder, texts, run.recipe.query, "Held-out queries")
    wanted = targets[queries.held_out].astype(np.float32)
    cosines = (found * wanted).sum(axis=1) / np.linalg.norm(wanted, axis=1)
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_p5": float(np.percentile(cosines, 5)),
        "cosine_p1": float(np.percentile(cosines, 1)),
    }


def _start(run: Run, student: Student) -> tuple[str, str]:
    """The checkpoint that a student starts from, and what pins it."""
    if student.start == "teacher":
        return str(run.teacher), load_finished(run.teacher, CheckpointManifest, "teacher").fingerprint
    if student.start in {other.name for other in run.recipe.students}:
        directory = run.aligned(student.start)
        command = f"align --student {student.start}"
        return str(directory), load_finished(directory, CheckpointManifest, command).fingerprint
    return student.start, fingerprint({"files": resolve(student.start).files})


def _beside(run: Run, student: Student) -> dict[str, str]:
    """What else decides the result: `kl` alone looks at the ads."""
    if student.objective != "kl":
        return {}
    return {"ads": current_ads(run, read_inventory(run.recipe.data)).fingerprint}


def _prune(encoder: SentenceTransformer, student: Student, calibration: list[str], run: Run) -> None:
    """Cut the student to its size by what its start does to some queries."""
    if student.layers is None and student.ffn_width is None:
        return
    batches = [calibration[start : start + 64] for start in range(0, len(calibration), 64)]
    importance = measure_importance(encoder, batches, run.recipe.query)
    kept = choose_layers(student.layer_rule, student.layers or len(layers_of(encoder)), importance)
    keep_layers(encoder, kept)
    if student.ffn_width is not None:
        keep_units(encoder, student.ffn_width, importance, kept)
    console.print(f"{student.name}: layers {kept} of {student.start}", markup=False, soft_wrap=True)


def _begin_head(
    encoder: SentenceTransformer, student: Student, queries: AlignmentQueries, targets: NDArray[np.float16], run: Run
) -> None:
    """Give the student a head of the teacher's dim, unless it keeps the one it has."""
    dim = run.recipe.dim
    if student.head == "kept":
        if encoder.get_embedding_dimension() != dim:
            found = encoder.get_embedding_dimension()
            raise TrainError(f"{student.name}: its start makes embeddings of {found} numbers; expected {dim} to keep")
        return
    put_head(encoder, None)
    if student.head == "random":
        width = encoder.get_embedding_dimension()
        put_head(encoder, dense_head(torch.randn(dim, width) / width**0.5))
        return
    rows = queries.learnt[:HEAD_QUERIES]
    texts = [queries.texts[row] for row in rows]
    inputs: Embeddings = pool_all(encoder, texts, run.recipe.query, "Fitting the head")
    put_head(encoder, fit_head(inputs, targets[rows].astype(np.float32)))


def _distance(run: Run, student: Student, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """What is made small, of the student's and the teacher's embeddings, (n, dim)."""
    if student.objective == "kl":
        ads = torch.from_numpy(read_embeddings(run.ads)).to(device)

        def divergence(found: Tensor, wanted: Tensor) -> Tensor:
            nearest = torch.topk(wanted @ ads.T, min(DIVERGENCE_ADS, len(ads)), dim=1).indices
            return score_divergence(found, wanted, ads[torch.unique(nearest)], DIVERGENCE_TEMPERATURE)

        return divergence
    return {"l2": squared_distance, "cosine": cosine_distance, "kernel": kernel_distance}[student.objective]
