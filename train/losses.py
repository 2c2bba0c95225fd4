"""The losses of the three phases: pure functions of embeddings.

All embeddings are L2-normalised and of shape (n, dim) unless said otherwise; row i of each argument belongs together.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(
    queries: Tensor,
    ads: Tensor,
    negatives: Tensor,
    *,
    known: Tensor,
    known_negatives: Tensor,
    temperature: float,
    query_terms: bool = True,
    ad_terms: bool = True,
    both_ways: bool = False,
    false_negative_margin: float | None = 0.1,
) -> Tensor:
    """The loss of Qwen3-Embedding (arXiv 2506.05176): each query finds its ad among all else in the batch.

    Args:
        queries: of the batch.
        ads: the ad of each query.
        negatives: shape (n, k, dim), k ads that each query is to be told from; k may be 0.
        known: bool (n, n), whether ad j is known to be right for query i; true where i is j.
        known_negatives: bool (n, k), whether one is known to be right after all, and so not pushed away.
        temperature: by which cosines are divided.
        query_terms: push the other queries away from each query too.
        ad_terms: push the other ads away from each query's ad too.
        both_ways: the mean with the loss of each ad that is to find its query among the batch's.
        false_negative_margin: what scores more than this above the own ad is not pushed away; all is where None.

    Returns:
        The mean over the queries, a scalar.
    """
    own = (queries * ads).sum(-1, keepdim=True)  # (n, 1)
    itself = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    others = [(queries @ ads.T, known), (torch.einsum("nd,nkd->nk", queries, negatives), known_negatives)]
    if query_terms:
        others.append((queries @ queries.T, itself))
    if ad_terms:
        others.append((ads @ ads.T, known))
    loss = _own_is_first(own, others, temperature, false_negative_margin)
    if both_ways:
        back = _own_is_first(own, [(ads @ queries.T, known.T)], temperature, false_negative_margin)
        loss = (loss + back) / 2
    return loss


def _own_is_first(
    own: Tensor, others: Sequence[tuple[Tensor, Tensor]], temperature: float, margin: float | None
) -> Tensor:
    """Cross-entropy of the own score, (n, 1), among others, (n, m) each, but for those that are known to be right."""
    columns = [own]
    for scores, right in others:
        hidden = scores.detach() > own.detach() + (torch.inf if margin is None else margin)
        columns.append(scores.masked_fill(hidden | right, -torch.inf))
    logits = torch.cat(columns, dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def cut(embeddings: Tensor, dim: int) -> Tensor:
    """The first `dim` numbers of embeddings (…, any dim), normalised again."""
    return functional.normalize(embeddings[..., :dim], dim=-1)


def matryoshka(loss: Callable[..., Tensor], dims: Sequence[int], *embeddings: Tensor) -> Tensor:
    """Mean of a loss over the embeddings cut to each of `dims`, so that a beginning is good by itself."""
    return torch.stack([loss(*(cut(part, dim) for part in embeddings)) for dim in dims]).mean()


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared L2 distance, summed over dimensions and averaged over queries: comparable between dims."""
    return (student - teacher).square().sum(-1).mean()


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One less the mean cosine: half the squared distance, as long as both are normalised."""
    return 1 - (student * teacher).sum(-1).mean()


def kernel_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all queries of the batch; blind to rotations."""
    return (student @ student.T - teacher @ teacher.T).square().mean()


def score_divergence(student: Tensor, teacher: Tensor, ads: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's distribution over some ads (m, dim) from the teacher's."""
    wanted = functional.log_softmax(teacher @ ads.T / temperature, dim=1)
    found = functional.log_softmax(student @ ads.T / temperature, dim=1)
    return functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
