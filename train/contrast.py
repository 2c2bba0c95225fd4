"""What phases 1 and 3 share: a batch of pairs with its negatives, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data import LabelledQueries, Pair
from train.losses import contrastive
from train.recipe import Contrastive


@dataclass(frozen=True)
class PairBatch:
    """Rows and texts of one step."""

    queries: list[str]
    rows: list[int]
    """The ad of each query."""
    negatives: NDArray[np.int64]
    """Rows of hard negatives, shape (n, k)."""
    known: Tensor
    """bool (n, n): whether ad j is known to be right, at least partly, for query i, or reads as the query's own ad."""
    known_negatives: Tensor
    """bool (n, k): the same of each query's hard negatives."""


def pair_batch(
    pairs: Sequence[Pair], labelled: LabelledQueries, ad_texts: Sequence[str], negatives: NDArray[np.int64]
) -> PairBatch:
    """Look up all that a step needs.

    Args:
        pairs: of the step.
        labelled: whose positions the pairs name.
        ad_texts: of the whole inventory, by row.
        negatives: a row for each query of `labelled`, perhaps of no columns.
    """
    rows = [pair.row for pair in pairs]
    positions = [pair.query for pair in pairs]
    own_negatives = negatives[positions]

    def is_known(pair: Pair, row: int) -> bool:
        return labelled.grades[pair.query].get(row, 0) > 0 or ad_texts[row] == ad_texts[pair.row]

    known = [[is_known(pair, row) for row in rows] for pair in pairs]
    among = [[is_known(pair, row) for row in wrong] for pair, wrong in zip(pairs, own_negatives.tolist(), strict=True)]
    return PairBatch(
        [labelled.texts[position] for position in positions],
        rows,
        own_negatives,
        torch.tensor(known),
        torch.tensor(among, dtype=torch.bool),  # said, as there may be none
    )


def contrast(batch: PairBatch, settings: Contrastive, queries: Tensor, ads: Tensor, negatives: Tensor) -> Tensor:
    """The contrastive loss of a batch's embeddings: (n, dim), (n, dim) and (n, k, dim)."""
    return contrastive(
        queries,
        ads,
        negatives,
        known=batch.known.to(queries.device),
        known_negatives=batch.known_negatives.to(queries.device),
        temperature=settings.temperature,
        query_terms=settings.query_terms,
        ad_terms=settings.ad_terms,
        both_ways=settings.both_ways,
        false_negative_margin=settings.false_negative_margin,
    )
