"""Smaller transformers out of larger ones: which layers and which inner units to keep, and the cut itself."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

from train.encoders import tokenized
from train.errors import TrainError
from train.recipe import LayerRule, Side


@dataclass(frozen=True)
class Family:
    """Where a family of transformers has its parts, as paths from the model and from a layer."""

    layers: str
    widening: tuple[str, ...]
    """The linear maps from the hidden size to the inner units."""
    narrowing: str
    """The linear map back."""


_BERT = Family("encoder.layer", ("intermediate.dense",), "output.dense")
FAMILIES = {
    "bert": _BERT,
    "mpnet": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "qwen3": Family("layers", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
}


@dataclass(frozen=True)
class Importance:
    """What layers and inner units do to some calibration texts, averaged over their tokens."""

    norm_ratio: NDArray[np.float64]
    """Norm of a layer's output over that of its input, shape (layers,)."""
    block_influence: NDArray[np.float64]
    """One less the cosine of a layer's output with its input, shape (layers,)."""
    activation: list[NDArray[np.float64]]
    """Size of what each inner unit passes on, for each layer of shape (inner units,)."""


def measure_importance(encoder: SentenceTransformer, batches: Iterable[list[str]], side: Side) -> Importance:
    """Run calibration texts through an encoder and watch its layers.

    Raises:
        TrainError: the encoder is of a family whose parts are not known here.
    """
    family = family_of(encoder)
    layers = layers_of(encoder)
    watches = [_Watch() for _ in layers]
    encoder.eval()
    with ExitStack() as hooks, torch.inference_mode():
        for layer, watch in zip(layers, watches, strict=True):
            hooks.callback(layer.register_forward_hook(watch.layer, with_kwargs=True).remove)
            hooks.callback(layer.get_submodule(family.narrowing).register_forward_pre_hook(watch.units).remove)
        for texts in batches:
            features = tokenized(encoder, texts, side)
            for watch in watches:
                watch.mask = features["attention_mask"].bool()
            encoder[0](features)
    return Importance(
        np.array([watch.ratio / watch.tokens for watch in watches]),
        np.array([watch.influence / watch.tokens for watch in watches]),
        [(watch.activation / watch.tokens).cpu().double().numpy() for watch in watches],
    )


def choose_layers(rule: LayerRule, count: int, importance: Importance) -> list[int]:
    """Positions of the layers to keep, in their order.

    `norm_ratio` is HARNESS-LM's rule, `block_influence` ShortGPT's; `keep_ends` asks nothing of the texts and keeps
    as many of the first as of the last, one more of the first where the number is odd, and the last alone if it is 1.

    Raises:
        TrainError: there are fewer layers than that.
    """
    total = len(importance.norm_ratio)
    if count > total:
        raise TrainError(f"the start has {total} layers; expected at most as many to keep, not {count}")
    if rule == "keep_ends":
        last = max(1, count // 2)
        return [*range(count - last), *range(total - last, total)]
    scores = importance.norm_ratio if rule == "norm_ratio" else importance.block_influence
    return sorted(np.argsort(-scores, kind="stable")[:count].tolist())


def keep_layers(encoder: SentenceTransformer, kept: list[int]) -> None:
    """Cut a transformer down to some of its layers."""
    model, config = encoder[0].auto_model, encoder[0].auto_model.config
    layers = layers_of(encoder)
    parent, _, name = family_of(encoder).layers.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList(layers[position] for position in kept))
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[position] for position in kept]
    for position, layer in enumerate(layers_of(encoder)):
        for part in layer.children():
            if hasattr(part, "layer_idx"):
                setattr(part, "layer_idx", position)  # noqa: B010 - a place in the key-value cache, no submodule


def keep_units(encoder: SentenceTransformer, width: int, importance: Importance, kept_layers: list[int]) -> None:
    """Cut the feed-forward blocks of layers that were kept down to their `width` busiest units.

    Raises:
        TrainError: they are narrower than that.
    """
    family = family_of(encoder)
    for position, layer in zip(kept_layers, layers_of(encoder), strict=True):
        activation = importance.activation[position]
        if width > len(activation):
            raise TrainError(f"the start has feed-forward blocks of {len(activation)} units; {width} cannot be kept")
        units = torch.from_numpy(np.sort(np.argsort(-activation, kind="stable")[:width]))
        for path in family.widening:
            _cut_linear(layer.get_submodule(path), units, dim=0)
        _cut_linear(layer.get_submodule(family.narrowing), units, dim=1)
    encoder[0].auto_model.config.intermediate_size = width


def family_of(encoder: SentenceTransformer) -> Family:
    """Where the parts of an encoder's transformer are.

    Raises:
        TrainError: its family is not known here.
    """
    kind = encoder[0].auto_model.config.model_type
    if kind not in FAMILIES:
        raise TrainError(f"models of type {kind} cannot be pruned; expected one of {sorted(FAMILIES)}")
    return FAMILIES[kind]


def layers_of(encoder: SentenceTransformer) -> nn.ModuleList:
    """The layers of an encoder's transformer."""
    found: nn.ModuleList = encoder[0].auto_model.get_submodule(family_of(encoder).layers)
    return found


class _Watch:
    """Sums over the tokens, padding left out, that pass through one layer."""

    def __init__(self) -> None:
        self.mask = torch.empty(0, dtype=torch.bool)
        self.tokens = 0
        self.ratio = 0.0
        self.influence = 0.0
        self.activation: Tensor = torch.zeros(1)

    def layer(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Hook of the layer: hidden states in and out, each (n, length, hidden)."""
        before = (args[0] if args else kwargs["hidden_states"])[self.mask].float()
        after = (output[0] if isinstance(output, tuple) else output)[self.mask].float()
        self.tokens += len(before)
        self.ratio += float((after.norm(dim=-1) / before.norm(dim=-1)).sum())
        self.influence += float((1 - functional.cosine_similarity(before, after, dim=-1)).sum())

    def units(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        """Hook before the narrowing map: what the inner units pass on, (n, length, inner units)."""
        self.activation = self.activation.to(args[0].device) + args[0][self.mask].float().abs().sum(0)


def _cut_linear(linear: nn.Module, kept: Tensor, dim: int) -> None:
    """Keep some outputs (`dim` 0) or inputs (1) of a linear map."""
    assert isinstance(linear, nn.Linear)
    kept = kept.to(linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, kept).clone())
    if dim == 0:
        linear.out_features = len(kept)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.detach()[kept].clone())
    else:
        linear.in_features = len(kept)
