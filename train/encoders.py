"""Checkpoints in training: loaded, run on texts, given a head, saved for `hlm export`.

In training a model ends before its normalisation, which `embed` does itself; a saved one carries it as its last module.
"""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor, nn
from torch.nn import functional

from export.onnx_graph import quiet
from export.source import resolve
from terminal import Advance, progress
from train.errors import TrainError
from train.recipe import Side

INFERENCE_BATCH = 64
TEXTS_OF_A_LENGTH = 64
"""Run together, so that little is padding: 128 queries have twice as many tokens where they are padded to one length.
With fewer the gradient of the word embeddings, of which each part makes one, costs more than padding does."""
Embeddings = NDArray[np.float32]


def load_encoder(model: str, pooling: str | None = None) -> SentenceTransformer:
    """Load a checkpoint as transformer, pooling and perhaps a dense head, in fp32.

    Args:
        model: hub id, local directory, or `demo`.
        pooling: for a checkpoint that does not bring its own; mean where not given.

    Raises:
        HlmError: there is no such checkpoint, or it is not a text encoder that can be trained.
    """
    directory = resolve(model).directory
    try:
        with quiet():
            encoder = SentenceTransformer(
                str(directory),
                device=device(),
                local_files_only=True,
                model_kwargs=_attention(),
            ).float()
    except (OSError, ValueError, LookupError, TypeError, ImportError, RuntimeError) as error:
        raise TrainError(f"{model}: sentence-transformers cannot load it: {str(error).splitlines()[0]}") from error
    if isinstance(encoder[-1], Normalize):
        del encoder[len(encoder) - 1]
    kinds = [type(module) for module in encoder]
    if kinds not in ([Transformer, Pooling], [Transformer, Pooling, Dense]):
        found = [kind.__name__ for kind in kinds]
        raise TrainError(f"{model}: is {found} where Transformer, Pooling and perhaps Dense are expected")
    if pooling and not (directory / "modules.json").is_file():
        encoder[1] = Pooling(encoder[1].get_embedding_dimension(), pooling_mode=pooling)
    encoder.tokenizer.padding_side = "right"  # as the service pads
    return encoder


def device() -> str:
    """Where training runs: the first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _attention() -> dict[str, str]:
    """How attention is computed, as transformers is told.

    On short texts torch's own kernel for CPUs takes as long for its backward pass as all matrices together: a step of
    128 queries through six layers of 384 takes 0.30 to 0.45 s without it, 0.63 to 0.71 s with it. Elsewhere
    transformers chooses, since some models cannot do what is best for others.
    """
    return {"attn_implementation": "eager"} if device() == "cpu" else {}


def has_bf16() -> bool:
    """Whether bf16 is the faster number format here: on GPUs, and on CPUs that multiply in it (AVX512_BF16, AMX).

    On two cores with AMX a training step of all-mpnet-base-v2 with 32 texts of 64 tokens takes 2.1 s in bf16 and 5.8 s
    in fp32; two cores of an AMD EPYC without tiles multiply matrices 4.6 times as fast in bf16.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - torch has no public name for it


def tokenized(encoder: SentenceTransformer, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
    """Token ids and mask, each (n, length), as the service makes them: NFKC, prompt, cut, padded on the right."""
    prepared = [side.prompt + unicodedata.normalize("NFKC", text) for text in texts]
    features = encoder.tokenizer(
        prepared, padding=True, truncation=True, max_length=side.max_tokens, return_tensors="pt"
    )
    return {name: features[name].to(encoder.device) for name in ("input_ids", "attention_mask")}


def embed(encoder: SentenceTransformer, texts: Sequence[str], side: Side) -> Tensor:
    """Embeddings (n, dim), L2-normalised, with gradients. The transformer runs in bf16 where that is fast."""
    return functional.normalize(pooled(encoder, texts, side), dim=-1)


def pooled(encoder: SentenceTransformer, texts: Sequence[str], side: Side) -> Tensor:
    """The same (n, dim) before normalisation; pooling and head are in fp32."""
    features = tokenized(encoder, texts, side)
    lengths = features["attention_mask"].sum(1)
    order = lengths.argsort(stable=True)
    with _in_bf16(encoder):
        parts = [
            encoder[0]({name: values[rows, : lengths[rows].max()] for name, values in features.items()})
            for rows in order.split(TEXTS_OF_A_LENGTH)  # type: ignore[no-untyped-call]
        ]
    with torch.autocast(encoder.device.type, enabled=False):
        return torch.cat([_after_transformer(encoder, part) for part in parts])[order.argsort()]


def _in_bf16(encoder: SentenceTransformer) -> torch.autocast:
    """Where that is fast; weights that can be trained are cast once for all that the outermost block holds."""
    return torch.autocast(encoder.device.type, torch.bfloat16, enabled=has_bf16())


def _after_transformer(encoder: SentenceTransformer, features: dict[str, Tensor]) -> Tensor:
    features["token_embeddings"] = features["token_embeddings"].float()
    for module in list(encoder)[1:]:
        features = module(features)
    embeddings: Tensor = features["sentence_embedding"]
    return embeddings


def embed_all(encoder: SentenceTransformer, texts: Sequence[str], side: Side, label: str) -> Embeddings:
    """Embeddings (n, dim) of many texts, in their order, without gradients and dropout."""
    with progress(label, len(texts), "texts") as advance:
        return embed_quietly(encoder, texts, side, advance)


def embed_quietly(encoder: SentenceTransformer, texts: Sequence[str], side: Side, advance: Advance) -> Embeddings:
    """The same as a part of something longer, whose progress is told elsewhere."""
    return _in_batches(embed, encoder, texts, side, advance)


def pool_all(encoder: SentenceTransformer, texts: Sequence[str], side: Side, label: str) -> Embeddings:
    """What comes before normalisation, (n, dim), of many texts."""
    with progress(label, len(texts), "texts") as advance:
        return _in_batches(pooled, encoder, texts, side, advance)


def fit_head(inputs: Embeddings, targets: Embeddings, ridge: float = 1e-3) -> Dense:
    """The dense head, without a bias, that is nearest to some targets by ridge regression.

    Args:
        inputs: pooled outputs of the encoder that gets the head, (n, width).
        targets: where they should land, (n, dim).
        ridge: penalty on the weights, as a share of the mean square of an input.
    """
    x, y = inputs.astype(np.float64), targets.astype(np.float64)
    gram = x.T @ x
    gram += np.eye(len(gram)) * ridge * np.trace(gram) / len(gram)
    return dense_head(torch.from_numpy(np.linalg.solve(gram, x.T @ y).T.astype(np.float32)))


def dense_head(weights: Tensor) -> Dense:
    """A head with these weights, (dim, width), and nothing else."""
    dim, width = weights.shape
    return Dense(width, dim, bias=False, activation_function=nn.Identity(), init_weight=weights.contiguous())


def put_head(encoder: SentenceTransformer, head: Dense | None) -> None:
    """Replace the head of an encoder, or take it off."""
    if isinstance(encoder[-1], Dense):
        del encoder[len(encoder) - 1]
    if head is not None:
        encoder.append(head.to(encoder.device))


def cut_to(encoder: SentenceTransformer, dim: int) -> None:
    """Cut an encoder's embeddings to their first `dim` numbers, by a head that belongs to the model and is exported.

    Raises:
        TrainError: they are shorter than that.
    """
    width = encoder.get_embedding_dimension()
    if width < dim:
        raise TrainError(f"the teacher makes embeddings of {width} numbers; expected a dim of at most that, not {dim}")
    if width > dim:
        weights = torch.eye(dim, width)
        if isinstance(encoder[-1], Dense):
            weights = encoder[-1].linear.weight.detach().cpu()[:dim].clone()  # a view cannot be saved
        put_head(encoder, dense_head(weights))


def save_encoder(encoder: SentenceTransformer, directory: Path) -> None:
    """Write a checkpoint in sentence-transformers' format, with its normalisation."""
    encoder.append(Normalize())
    try:
        with quiet():
            encoder.save(str(directory), create_model_card=False)
    finally:
        del encoder[len(encoder) - 1]


def _in_batches(
    run: Callable[[SentenceTransformer, Sequence[str], Side], Tensor],
    encoder: SentenceTransformer,
    texts: Sequence[str],
    side: Side,
    advance: Advance,
) -> Embeddings:
    """Run batches of like length without gradients and dropout; the encoder's mode is then what it was."""
    order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
    embeddings = np.empty((len(texts), encoder.get_embedding_dimension()), dtype=np.float32)
    training = encoder.training
    encoder.eval()
    with torch.no_grad(), _in_bf16(encoder):  # inference mode would cast the weights for every batch
        for start in range(0, len(order), INFERENCE_BATCH):
            chosen = order[start : start + INFERENCE_BATCH]
            embeddings[chosen] = run(encoder, [texts[position] for position in chosen], side).cpu().numpy()
            advance(len(chosen))
    encoder.train(training)
    return embeddings
