"""Quality against latency as one picture: what a user picks a student from."""

from collections.abc import Sequence
from pathlib import Path

from plots import plot
from train.latency import EncoderCost

PLOT_NAME = "frontier.svg"


def frontier(costs: Sequence[EncoderCost]) -> list[EncoderCost]:
    """Those that no other beats in both, the fastest first."""
    best: list[EncoderCost] = []
    for cost in sorted((one for one in costs if one.recall_kept is not None), key=lambda one: one.us[1]):
        if not best or (cost.recall_kept or 0) > (best[-1].recall_kept or 0):
            best.append(cost)
    return best


def plot_frontier(costs: Sequence[EncoderCost], path: Path) -> None:
    """Draw every encoder, and a line through the frontier, as SVG or PNG by the name's ending."""
    with plot(path) as figure:
        axes = figure.add_subplot()
        chosen = frontier(costs)
        axes.plot([one.us[1] for one in chosen], [one.recall_kept for one in chosen], color="#999999", zorder=1)
        for precision in sorted({cost.precision for cost in costs}):
            points = [one for one in costs if one.precision == precision and one.recall_kept is not None]
            axes.plot([one.us[1] for one in points], [one.recall_kept for one in points], "o", label=precision)
        for cost in costs:
            if cost.recall_kept is not None:
                at = (cost.us[1], cost.recall_kept)
                axes.annotate(cost.name, at, (5, 5), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("processor time of a query, batch 1, one core, µs")
        axes.set_ylabel("share of the teacher's recall")
        axes.legend(loc="lower right", frameon=False)
