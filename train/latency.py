"""What an encoder costs: every exported one, teacher included, in the same minutes, and what quality that buys.

hlm train latency RECIPE
"""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from artifacts.manifest import Precision
from artifacts.store import write_atomic
from service.encoder import MODEL_NAME, Encoder
from terminal import progress
from train import present
from train.data import read_inventory, read_split
from train.errors import TrainError
from train.report import REPORT_NAME, Report, as_markdown
from train.runs import EmbeddingsManifest, Run, load_finished

COSTS_NAME = "latency.json"
COSTS_TABLE = "latency.md"
QUERIES = 192
"""Dev queries that are encoded, in the order of the file."""
BATCH_SIZES = (1, 8, 32)
TURNS = 5


class EncoderCost(BaseModel):
    """Processor time of one exported encoder, on one thread."""

    model_config = ConfigDict(frozen=True)

    name: str
    precision: Precision
    megabytes: float
    """Of the graph with its weights."""
    us: dict[int, float]
    """A query, tokenised, in microseconds, by batch size; the median over the turns."""
    speed_up: dict[int, float]
    """How many times longer the teacher takes in the same precision, by batch size; empty without such an export."""
    recall_kept: float | None = None
    """Share of the teacher's recall on the first labelled set of the last evaluation."""


def measure_costs(run: Run) -> list[EncoderCost]:
    """Time all exported encoders and write a table.

    They take turns over the same queries, so that whatever else the machine does meets all alike; processor time
    leaves out what others take of the core.

    Raises:
        HlmError: the recipe exports nothing, or has not been run as far as that.
    """
    embedded = load_finished(run.ads, EmbeddingsManifest, "embed-ads")
    exports = list(present.exports(run, list(present.checkpoints(run, embedded))))
    if not exports:
        raise TrainError(
            f"{run.directory}: nothing is exported from its last checkpoints; `hlm train run` exports all encoders"
        )
    encoders = [Encoder.load(run.exported(*one))[0] for one in exports]
    texts = read_split(run.recipe.data.dev[:1], "dev", read_inventory(run.recipe.data)).texts[:QUERIES]
    times = _take_turns(encoders, texts)
    kept = _recall_kept(run)
    costs = []
    teachers = {precision: us for (name, precision), us in zip(exports, times, strict=True) if name == "teacher"}
    for (name, precision), us in zip(exports, times, strict=True):
        teacher = teachers.get(precision, {})
        costs.append(
            EncoderCost(
                name=name,
                precision=precision,
                megabytes=(run.exported(name, precision) / MODEL_NAME).stat().st_size / 1e6,
                us=us,
                speed_up={size: longer / us[size] for size, longer in teacher.items()},
                recall_kept=kept.get(f"{name}, {precision}"),
            )
        )
    run.evaluation.mkdir(parents=True, exist_ok=True)
    content = b"".join(cost.model_dump_json().encode() + b"\n" for cost in costs)
    write_atomic(run.evaluation / COSTS_NAME, content)
    write_atomic(run.evaluation / COSTS_TABLE, markdown(costs).encode())
    return costs


def markdown(costs: Sequence[EncoderCost]) -> str:
    """The costs as a Markdown table."""
    head = ["encoder", "MB", *(f"us, batch {size}" for size in BATCH_SIZES), "queries/s", "recall kept"]
    lines = [head, ["---"] * len(head)]
    for cost in costs:
        ratios = {size: f" ({ratio:.1f}×)" for size, ratio in cost.speed_up.items()}
        times = [f"{cost.us[size]:,.0f}{ratios.get(size, '')}" for size in BATCH_SIZES]
        rate = f"{1e6 / min(cost.us.values()):,.0f}"
        kept = "" if cost.recall_kept is None else f"{cost.recall_kept:.3f}"
        lines.append([f"{cost.name}, {cost.precision}", f"{cost.megabytes:.1f}", *times, rate, kept])
    return as_markdown(lines)


def _take_turns(encoders: Sequence[Encoder], texts: Sequence[str]) -> list[dict[int, float]]:
    """Median microseconds a query of each encoder, by batch size."""
    token_ids = [[encoder.tokenize(text) for text in texts] for encoder in encoders]
    found: list[dict[int, list[float]]] = [{size: [] for size in BATCH_SIZES} for _ in encoders]
    with progress("Timing", TURNS * len(BATCH_SIZES) * len(encoders), "turns") as advance:
        for _ in range(TURNS):
            for size in BATCH_SIZES:
                for encoder, ids, seconds in zip(encoders, token_ids, found, strict=True):
                    encoder.encode(ids[:size])  # warm: the others had the caches
                    started = time.process_time()
                    for start in range(0, len(ids), size):
                        encoder.encode(ids[start : start + size])
                    seconds[size].append(time.process_time() - started)
                    advance(1)
    scale = partial(np.multiply, 1e6 / len(texts))
    return [{size: float(np.median(scale(values))) for size, values in one.items()} for one in found]


def _recall_kept(run: Run) -> dict[str, float]:
    """Share of the teacher's recall by stage, on the first set of the last evaluation, as far as there was one."""
    try:
        report = Report.model_validate_json((run.evaluation / REPORT_NAME).read_bytes())
    except (OSError, ValidationError):
        return {}
    first = report.stages[0]
    recall = next(name for name in first.measures if name.startswith("R("))
    return {
        stage.stage: stage.retention[recall].value
        for stage in report.stages
        if stage.labelled_set == first.labelled_set
    }
