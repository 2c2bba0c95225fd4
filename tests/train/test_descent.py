"""Steps, rates, gradients in parts, and a run that is killed."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from train.descent import LOG_NAME, backward, cached_backward, descend, learning_rate
from train.errors import TrainError
from train.recipe import Optimisation

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Optimisation(batch_size=2, learning_rate=0.1, steps_per_save=3)
STEPS = 8


def train(work: Path, killed_before: int = -1) -> list[Tensor]:
    """A few steps of a net with dropout, whose data follow from the step's number."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def step_loss(step: int) -> float:
        if step == killed_before:
            os.kill(os.getpid(), signal.SIGKILL)
        inputs = torch.arange(8.0).reshape(2, 4) / 8 + step
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        return loss.item()

    descend(model, step_loss, STEPS, SETTINGS, work, "Test")
    return [parameter.detach() for parameter in model.parameters()]


def log_of(work: Path) -> list[list[str]]:
    with (work / LOG_NAME).open() as file:
        return [row[:4] for row in csv.reader(file)]  # the fifth column is the time


@pytest.mark.parametrize("killed_before", [1, 3, 5, 7])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, killed_before: int):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = train(whole)
    code = (
        "import sys; from pathlib import Path; from tests.train.test_descent import train;"
        "train(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(killed), str(killed_before)], cwd=ROOT, capture_output=True, check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    for found, wanted in zip(train(killed), expected, strict=True):
        assert torch.equal(found, wanted)
    assert log_of(killed) == log_of(whole)
    assert [row[0] for row in log_of(whole)] == ["step", *map(str, range(STEPS))]


def test_a_finished_run_takes_no_step_again(tmp_path: Path):
    expected = train(tmp_path)
    for found, wanted in zip(train(tmp_path, killed_before=0), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path):
    with pytest.raises(TrainError, match="the loss of step 0 is nan"):
        descend(nn.Linear(1, 1), lambda _: float("nan"), 1, SETTINGS, tmp_path, "Test")


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        pytest.param("linear", 0, 1 / 3, id="first of the warm-up"),
        pytest.param("linear", 2, 1, id="after the warm-up"),
        pytest.param("linear", 11, 0.5, id="linear, halfway"),
        pytest.param("cosine", 11, 0.5, id="cosine, halfway"),
        pytest.param("cosine", 2 + 6, 0.75, id="cosine, a third: (1 + cos 60°) / 2"),
    ],
)
def test_the_rate_rises_and_falls(schedule: str, step: int, share: float):
    settings = Optimisation(batch_size=2, learning_rate=0.2, warm_up=0.1, schedule=schedule)
    assert learning_rate(settings, step, 20) == pytest.approx(0.2 * share)


def test_gradients_in_parts_are_those_of_the_whole():
    """With dropout, whose random numbers must be the same in both passes."""
    inputs = torch.arange(24.0).reshape(6, 4) / 24
    gradients = []
    for method, size in ((backward, 2), (cached_backward, 2)):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        forwards = [lambda part=part, model=model: model(part) for part in inputs.split(size)]
        value = method(forwards, lambda embeddings: (embeddings @ embeddings.T).exp().mean())
        gradients.append([value, *(parameter.grad for parameter in model.parameters())])
        gradients[-1].append(torch.rand(1))  # and both leave the random numbers where the other does
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
