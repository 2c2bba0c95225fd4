"""Phase 1: one encoder for queries and ads learns from graded pairs which ads a query asks for.

hlm train teacher RECIPE
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from artifacts.space import EmbeddingSpace
from artifacts.store import fingerprint
from client.trec import read_queries
from export.onnx_graph import pooling_name
from export.source import resolve
from train.contrast import contrast, pair_batch
from train.data import (
    Inventory,
    LabelledQueries,
    Pair,
    dev_queries,
    plan_pair_batches,
    read_inventory,
    read_lessons,
    relevant_pairs,
)
from train.descent import backward, cached_backward, descend
from train.embeddings import embed_in_shards, normalized
from train.encoders import cut_to, embed, embed_all, load_encoder
from train.lora import add_low_rank, merge_low_rank
from train.losses import matryoshka
from train.mine import judged_negatives, mine_negatives
from train.recipe import Recipe, Side
from train.runs import (
    FORMAT,
    CheckpointManifest,
    Run,
    file_hash,
    labelled_hashes,
    load_finished,
    phase,
    publish_checkpoint,
    weights_hash,
)
from train.title_queries import label_titles, mix


def train_teacher(run: Run) -> None:
    """Run phase 1, unless its result is there already: fine-tune, then cut to the length of the embedding space.

    Raises:
        HlmError: the recipe, its data or the model cannot be used.
    """
    _tune(run)
    tuned = load_finished(run.tuned, CheckpointManifest, "teacher")
    key = fingerprint({"format": FORMAT, "phase": "cut", "tuned": tuned.fingerprint, "dim": run.recipe.dim})
    with phase(run, run.teacher, CheckpointManifest, key) as work:
        if work is None:
            return
        encoder = load_encoder(str(run.tuned))
        cut_to(encoder, run.recipe.dim)
        publish_checkpoint(encoder, run.teacher, key, work, space_of=partial(_space, run.recipe, encoder), measures={})


def _tune(run: Run) -> None:
    """Fine-tune at full width, so that spaces of several lengths can be cut from one teacher."""
    recipe, settings = run.recipe, run.recipe.teacher
    with phase(run, run.tuned, CheckpointManifest, _key(recipe)) as work:
        if work is None:
            return
        # What there is to learn, and the model that learns it.
        torch.manual_seed(recipe.seed)
        inventory = read_inventory(recipe.data)
        labelled = read_lessons(recipe.data, inventory)
        encoder = load_encoder(settings.model, settings.pooling)
        made_up = made_up_queries(recipe, inventory)
        negatives = np.concatenate(
            [
                _hard_negatives(recipe, encoder, inventory, labelled, work),
                _judged_negatives(recipe, inventory, made_up),
            ]
        )
        batches = _plan(recipe, labelled, made_up)
        learnt = labelled.followed_by(made_up)
        dims = sorted({*_prefixes(recipe), encoder.get_embedding_dimension()})
        if settings.lora_rank:
            add_low_rank(encoder[0], settings.lora_rank)

        # A step: queries, their ads and hard negatives through the same weights.
        def step_loss(step: int) -> float:
            batch = pair_batch(batches[step], learnt, inventory.texts, negatives)
            sizes = [len(batch.queries), len(batch.rows), batch.negatives.size]
            ad_rows = [*batch.rows, *batch.negatives.ravel()]
            groups = [(batch.queries, recipe.query), ([inventory.texts[row] for row in ad_rows], recipe.ad)]

            def loss_of(embeddings: Tensor) -> Tensor:
                queries, ads, wrong = torch.split(embeddings, sizes)
                wrong = wrong.view(*batch.negatives.shape, embeddings.shape[-1])
                return matryoshka(partial(contrast, batch, settings.loss), dims, queries, ads, wrong)

            forwards = [partial(embed, encoder, texts, side) for texts, side in _cut(groups, settings.mini_batch_size)]
            return (cached_backward if settings.mini_batch_size else backward)(forwards, loss_of)

        # The descent.
        descend(encoder, step_loss, len(batches), settings.optimisation, work, "Teacher")
        if settings.lora_rank:
            merge_low_rank(encoder[0])
        space_of = partial(_space, recipe, encoder)
        publish_checkpoint(encoder, run.tuned, _key(recipe), work, space_of=space_of, measures={})


def _key(recipe: Recipe) -> str:
    held_out = dev_queries(recipe.data) if recipe.teacher.title_queries else []
    return fingerprint(
        {
            "format": FORMAT,
            "phase": "teacher",
            "seed": recipe.seed,
            "dims": _prefixes(recipe),
            "sides": (recipe.query, recipe.ad),
            "settings": recipe.teacher,
            "model": resolve(recipe.teacher.model).files,
            "data": labelled_hashes(recipe.data),
            "held_out": [file_hash(path) for path in held_out],
        }
    )


def made_up_queries(recipe: Recipe, inventory: Inventory) -> LabelledQueries:
    """What titles give to learn from beside the labels, without the dev split's queries."""
    if not recipe.teacher.title_queries:
        return LabelledQueries([], [], [])
    dev = [text for path in dev_queries(recipe.data) for text in read_queries(path).values()]
    return label_titles(inventory, recipe.teacher.title_queries, recipe.seed, dev)


def _plan(recipe: Recipe, labelled: LabelledQueries, made_up: LabelledQueries) -> list[list[Pair]]:
    """Batches of labelled queries and batches of made-up ones; positions of the latter begin where the former end."""
    optimisation, seed = recipe.teacher.optimisation, recipe.seed
    size, first = optimisation.batch_size, len(labelled.texts)
    batches = plan_pair_batches(relevant_pairs(labelled), size, optimisation.epochs, seed)
    if not made_up.texts:
        return batches
    pairs = [Pair(first + pair.query, pair.row) for pair in relevant_pairs(made_up)]
    return mix(batches, plan_pair_batches(pairs, size, 1, seed), seed)


def _hard_negatives(
    recipe: Recipe, encoder: SentenceTransformer, inventory: Inventory, labelled: LabelledQueries, work: Path
) -> NDArray[np.int64]:
    """Rows of hard negatives, shape (queries, k), by judgment or by the model as it is before training."""
    loss = recipe.teacher.loss
    if not loss.hard_negatives or loss.negatives_from == "judged":
        return _judged_negatives(recipe, inventory, labelled)
    shards = work / "mining"
    shards.mkdir(exist_ok=True)
    ads = embed_in_shards(encoder, inventory.texts, recipe.ad, shards, "Embedding ads to mine")
    queries = embed_all(encoder, labelled.texts, recipe.query, "Embedding queries to mine")
    return mine_negatives(
        labelled, queries, normalized(ads), count=loss.hard_negatives, band=loss.band, seed=recipe.seed
    )


def _judged_negatives(recipe: Recipe, inventory: Inventory, queries: LabelledQueries) -> NDArray[np.int64]:
    """The same by judgment; all by chance where nothing was judged wrong, as for made-up queries."""
    count = recipe.teacher.loss.hard_negatives
    return judged_negatives(queries, len(inventory.texts), count=count, seed=recipe.seed)


def _cut(groups: list[tuple[list[str], Side]], size: int | None) -> Iterator[tuple[Sequence[str], Side]]:
    """Groups of texts in pieces of at most `size`."""
    for texts, side in groups:
        step = size or len(texts)
        for start in range(0, len(texts), step):
            yield texts[start : start + step], side


def _prefixes(recipe: Recipe) -> list[int]:
    """Lengths at which a beginning of the embedding is trained to be good by itself."""
    return sorted({*recipe.teacher.matryoshka_dims, recipe.dim})


def _space(recipe: Recipe, encoder: SentenceTransformer, directory: Path) -> EmbeddingSpace:
    """The space that a teacher defines: its weights pin it."""
    width = encoder.get_embedding_dimension()
    assert width is not None
    return EmbeddingSpace(
        teacher=Path(recipe.teacher.model).name,
        revision=f"sha256:{weights_hash(directory)}",
        dim=width,
        pooling=pooling_name(encoder[1]),
        normalized=True,
        query_prompt=recipe.query.prompt,
        ad_prompt=recipe.ad.prompt,
        matryoshka_dims=tuple(sorted({dim for dim in recipe.teacher.matryoshka_dims if dim < width})),
    )
