"""The frontier of quality against latency."""

from train.frontier import frontier
from train.latency import EncoderCost


def cost(name: str, us: float, kept: float | None) -> EncoderCost:
    return EncoderCost(name=name, precision="int8", megabytes=1, us={1: us}, speed_up={1: 1}, recall_kept=kept)


def test_who_is_slower_and_worse_is_not_on_the_frontier():
    costs = [
        cost("teacher", 9, 1.0),
        cost("l6", 3, 0.99),
        cost("slow", 4, 0.98),
        cost("l2", 1, 0.9),
        cost("new", 0.1, None),
    ]
    assert [one.name for one in frontier([*costs, cost("new", 0.1, None)])] == ["l2", "l6", "teacher"]
