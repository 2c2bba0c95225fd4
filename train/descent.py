"""The steps of an optimiser, with a log, and a state from which a killed run goes on bit for bit."""

import csv
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.store import write_atomic
from terminal import progress
from train.errors import TrainError
from train.recipe import Optimisation

LOG_NAME = "log.csv"
STATE_NAME = "state.pt"
_COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "seconds")


def descend(
    model: nn.Module,
    step_loss: Callable[[int], float],
    steps: int,
    settings: Optimisation,
    work: Path,
    label: str,
) -> None:
    """Train the parameters that ask for gradients, going on from the state that an earlier run left in `work`.

    A continued run ends in the same bits as one that was never stopped: the state holds weights, optimiser and random
    numbers, and everything else follows from the number of the step.

    Args:
        model: what is trained.
        step_loss: does the forward and backward pass of a step, and gives its loss.
        steps: how many there are in all.
        settings: of the optimiser.
        work: an existing directory for state and log, which belongs to exactly this run.
        label: what is shown.

    Raises:
        TrainError: the loss is no longer a number.
    """
    model.train(settings.dropout)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    first = _restore(work / STATE_NAME, model, optimizer)
    log = _StepLog(work / LOG_NAME, first)
    with progress(label, steps, "steps", done=first) as advance:
        for step in range(first, steps):
            rate = learning_rate(settings, step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = step_loss(step)
            if not math.isfinite(loss):
                raise TrainError(f"{label}: the loss of step {step} is {loss}; expected a number: lower learning_rate")
            norm = nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
            log.append(step, loss, rate, float(norm))
            if (step + 1) % settings.steps_per_save == 0 or step + 1 == steps:
                log.flush()
                _save(work / STATE_NAME, step + 1, model, optimizer)
            advance(1, f"loss {log.smooth_loss:.4f}")
    log.flush()


def learning_rate(settings: Optimisation, step: int, steps: int) -> float:
    """Rate at a step, counted from 0: up in a line over the warm-up, then down to nothing."""
    warm_up = round(settings.warm_up * steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / (warm_up + 1)
    done = (step - warm_up) / max(1, steps - warm_up)
    left = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate * left


def backward(forwards: Sequence[Callable[[], Tensor]], loss_of: Callable[[Tensor], Tensor]) -> float:
    """Backward pass of a loss over several groups of texts.

    Args:
        forwards: each embeds one group, (m, dim).
        loss_of: the loss of all their embeddings, joined in order.

    Returns:
        The loss.
    """
    loss = loss_of(torch.cat([forward() for forward in forwards]))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def cached_backward(forwards: Sequence[Callable[[], Tensor]], loss_of: Callable[[Tensor], Tensor]) -> float:
    """The same where the activations of all groups do not fit into memory (GradCache, arXiv 2101.06983).

    All texts are embedded once without activations, the loss gives the gradient of each embedding, and each group is
    then embedded again, with the same random numbers, to carry its part further back. Costs one more forward pass.
    """
    states, parts = [], []
    with torch.no_grad():
        for forward in forwards:
            states.append(random_state())
            parts.append(forward())
    after = random_state()
    embeddings = torch.cat(parts).requires_grad_()
    loss = loss_of(embeddings)
    loss.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    gradients = torch.split(embeddings.grad, [len(part) for part in parts])
    for forward, state, gradient in zip(forwards, states, gradients, strict=True):
        set_random_state(state)
        forward().backward(gradient)  # type: ignore[no-untyped-call]
    set_random_state(after)
    return loss.item()


def random_state() -> dict[str, Any]:
    """Where torch's random numbers stand, on the CPU and on every GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to where `random_state` was asked."""
    torch.set_rng_state(state["cpu"])
    torch.cuda.set_rng_state_all(state["cuda"])


class _StepLog:
    """`log.csv`, a line a step; lines after the step that a run goes on from are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        self._started = time.perf_counter()
        self._rows = self._kept(first)
        self.smooth_loss = math.nan
        """Mean that forgets: about the last fifty steps."""

    def append(self, step: int, loss: float, rate: float, norm: float) -> None:
        """Remember a step."""
        self.smooth_loss = loss if math.isnan(self.smooth_loss) else 0.98 * self.smooth_loss + 0.02 * loss
        seconds = time.perf_counter() - self._started
        self._rows.append([str(step), f"{loss:.6g}", f"{rate:.6g}", f"{norm:.6g}", f"{seconds:.3f}"])

    def flush(self) -> None:
        """Write all lines, so that a kill leaves the old ones or the new."""
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([_COLUMNS, *self._rows])
        write_atomic(self._path, lines.getvalue().encode())

    def _kept(self, first: int) -> list[list[str]]:
        with suppress(OSError), self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1 : first + 1]
        return []


def _save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the state so that a kill leaves the old one or the new; streamed, as it may be larger than memory."""
    trained = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {"step": step, "weights": trained, "optimizer": optimizer.state_dict(), "random": random_state()}
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up a state; returns the number of steps it has behind it, 0 where there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"])
    return int(state["step"])
