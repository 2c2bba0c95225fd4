"""The arm without alignment: a small query encoder and a large ad encoder learn together from graded pairs.

hlm train joint RECIPE

It is what HARNESS-LM is held against. Both are trained whole, and share nothing but the loss.
"""

from functools import partial
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from artifacts.space import EmbeddingSpace
from artifacts.store import fingerprint
from export.onnx_graph import pooling_name
from export.source import resolve
from train.contrast import contrast, pair_batch
from train.data import plan_pair_batches, read_inventory, read_lessons, relevant_pairs
from train.descent import backward, descend
from train.embeddings import embed_with
from train.encoders import cut_to, dense_head, embed, load_encoder, put_head
from train.errors import TrainError
from train.losses import matryoshka
from train.mine import judged_negatives
from train.recipe import Joint, Recipe
from train.runs import (
    FORMAT,
    CheckpointManifest,
    Run,
    labelled_hashes,
    load_finished,
    phase,
    publish_checkpoint,
    take,
    weights_hash,
)


def train_joint(run: Run) -> None:
    """Train the pair and embed the ads with its half, unless the results are there already.

    Raises:
        HlmError: the recipe has no part `joint`, or its data or a model cannot be used.
    """
    recipe, settings = run.recipe, run.recipe.joint
    if settings is None:
        raise TrainError("the recipe has no part `joint`, which says who learns together")
    key = joint_key(recipe, settings)
    take(run, run.joint_ads_encoder, CheckpointManifest, key)  # the other half of what this phase leaves
    with phase(run, run.joint, CheckpointManifest, key) as work:
        if work is not None:
            _train(run, settings, key, work)
    inventory = read_inventory(recipe.data)
    embed_with(run.joint_ads_encoder, run, run.joint_ads, inventory.texts, recipe.ad)


def _train(run: Run, settings: Joint, key: str, work: Path) -> None:
    # What there is to learn, and the two that learn it.
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    inventory = read_inventory(recipe.data)
    labelled = read_lessons(recipe.data, inventory)
    negatives = judged_negatives(labelled, len(inventory.texts), count=settings.loss.hard_negatives, seed=recipe.seed)
    optimisation = settings.optimisation
    batches = plan_pair_batches(relevant_pairs(labelled), optimisation.batch_size, optimisation.epochs, recipe.seed)
    ads = load_encoder(recipe.teacher.model, recipe.teacher.pooling)
    queries = _of_width(load_encoder(settings.query_model), ads.get_embedding_dimension() or 0)
    dims = sorted({*recipe.teacher.matryoshka_dims, recipe.dim, ads.get_embedding_dimension()})

    # A step: queries through the one, ads and hard negatives through the other.
    def step_loss(step: int) -> float:
        batch = pair_batch(batches[step], labelled, inventory.texts, negatives)
        sizes = [len(batch.queries), len(batch.rows), batch.negatives.size]
        texts = [inventory.texts[row] for row in [*batch.rows, *batch.negatives.ravel()]]

        def loss_of(embeddings: Tensor) -> Tensor:
            asked, right, wrong = torch.split(embeddings, sizes)
            wrong = wrong.view(*batch.negatives.shape, embeddings.shape[-1])
            return matryoshka(partial(contrast, batch, settings.loss), dims, asked, right, wrong)

        forwards = [partial(embed, queries, batch.queries, recipe.query), partial(embed, ads, texts, recipe.ad)]
        return backward(forwards, loss_of)

    # The descent, and both cut to the length of the embedding space, which the ads' encoder defines.
    pair = nn.ModuleDict({"queries": queries, "ads": ads})
    descend(pair, step_loss, len(batches), optimisation, work, "Joint")
    cut_to(ads, recipe.dim)
    cut_to(queries, recipe.dim)
    space_of = partial(_space, recipe, ads)
    publish_checkpoint(ads, run.joint_ads_encoder, key, work, space_of=space_of, measures={})
    space = load_finished(run.joint_ads_encoder, CheckpointManifest, "joint").space
    publish_checkpoint(queries, run.joint, key, work, space_of=lambda _: space, measures={})


def _of_width(encoder: SentenceTransformer, width: int) -> SentenceTransformer:
    """An encoder with embeddings of a width, by a head that begins at random where its own are of another."""
    found = encoder.get_embedding_dimension()
    if found != width:
        put_head(encoder, None)
        inner = encoder.get_embedding_dimension()
        assert inner is not None
        put_head(encoder, dense_head(torch.randn(width, inner) / inner**0.5))
    return encoder


def joint_key(recipe: Recipe, settings: Joint) -> str:
    """Fingerprint of the pair that `train_joint` makes."""
    return fingerprint(
        {
            "format": FORMAT,
            "phase": "joint",
            "seed": recipe.seed,
            "dims": sorted({*recipe.teacher.matryoshka_dims, recipe.dim}),
            "dim": recipe.dim,
            "sides": (recipe.query, recipe.ad),
            "settings": settings,
            "models": [resolve(model).files for model in (settings.query_model, recipe.teacher.model)],
            "pooling": recipe.teacher.pooling,
            "data": labelled_hashes(recipe.data),
        }
    )


def _space(recipe: Recipe, ads: SentenceTransformer, directory: Path) -> EmbeddingSpace:
    """The pair's own space: the weights of its ad encoder pin it."""
    return EmbeddingSpace(
        teacher=f"{Path(recipe.teacher.model).name}-joint",
        revision=f"sha256:{weights_hash(directory)}",
        dim=recipe.dim,
        pooling=pooling_name(ads[1]),
        normalized=True,
        query_prompt=recipe.query.prompt,
        ad_prompt=recipe.ad.prompt,
    )
