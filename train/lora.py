"""Low-rank updates of linear maps (LoRA, arXiv 2106.09685), trained in place of the weights, then merged into them."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class LowRank(nn.Module):
    """A frozen linear map plus a trained one of low rank, which is nothing at first."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        """Wrap a linear map.

        Args:
            linear: is frozen.
            rank: of the update; its outputs are doubled, as is usual.
        """
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False).to(linear.weight)
        self.up = nn.Linear(rank, linear.out_features, bias=False).to(linear.weight)
        self.scale = 2.0
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (…, out) of inputs (…, in)."""
        outputs: Tensor = self.linear(inputs) + self.scale * self.up(self.down(inputs))
        return outputs

    def merged(self) -> nn.Linear:
        """The linear map with the update added to its weights."""
        with torch.no_grad():
            self.linear.weight += self.scale * self.up.weight @ self.down.weight
        return self.linear.requires_grad_(True)


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Freeze a model and give each of its linear maps an update to train."""
    model.requires_grad_(False)
    _replace(model, nn.Linear, lambda linear: LowRank(linear, rank))


def merge_low_rank(model: nn.Module) -> None:
    """Make it a plain model again, with the updates in its weights."""
    _replace(model, LowRank, LowRank.merged)
    model.requires_grad_(True)


def _replace(model: nn.Module, kind: type[ModuleT], change: Callable[[ModuleT], nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, change(child))
