"""The shapes that batches have on a device, and what each costs there: pure arithmetic.

A shape is a batch bucket × a padding bucket. There are few of them, so that each can be warmed up, captured as a CUDA
graph and built into a TensorRT engine before a request needs it; a batch is padded to the cheapest that it fits into.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

GOOD_RATE = 0.9
"""Of the best rate that any batch size reaches. Larger batches than it takes for this add waiting and little else."""


class Shape(NamedTuple):
    """Rows and padded tokens a row."""

    batch: int
    length: int


def batch_buckets(max_batch_size: int) -> tuple[int, ...]:
    """The powers of two below the largest batch size, and that."""
    return (*(1 << power for power in range((max_batch_size - 1).bit_length())), max_batch_size)


def shapes_of(batch_buckets: Sequence[int], padding_buckets: Sequence[int], max_tokens: int) -> list[Shape]:
    """All combinations, so that every text of up to `max_tokens` fits into one, and none is longer than that."""
    lengths = [length for length in sorted(set(padding_buckets)) if length < max_tokens] + [max_tokens]
    return [Shape(batch, length) for batch in sorted(set(batch_buckets)) for length in lengths]


class ShapeCosts:
    """What a run of each shape costs, in seconds; immutable."""

    def __init__(self, seconds: Mapping[Shape, float]) -> None:
        """Take a complete grid of shapes, as `shapes_of` makes it."""
        self.seconds = dict(seconds)
        self._batches = sorted({shape.batch for shape in seconds})
        self._lengths = sorted({shape.length for shape in seconds})
        self._cheapest = {shape: self._cheapest_around(shape) for shape in seconds}

    @property
    def largest(self) -> Shape:
        """What no batch may exceed."""
        return Shape(self._batches[-1], self._lengths[-1])

    def describe(self) -> list[dict[str, float]]:
        """What `/info` says of them."""
        return [
            {"batch": shape.batch, "length": shape.length, "ms": round(1e3 * run_s, 4)}
            for shape, run_s in sorted(self.seconds.items())
        ]

    def shape_for(self, rows: int, length: int) -> Shape:
        """The cheapest shape with room for a batch.

        Args:
            rows: texts in it, at most those of `largest`.
            length: tokens of the longest, likewise.

        Raises:
            ValueError: it fits into none.
        """
        if rows > self._batches[-1] or length > self._lengths[-1]:
            raise ValueError(f"a batch of {rows} × {length} tokens where {self.largest} is the largest shape")
        batch = self._batches[bisect_left(self._batches, rows)]
        return self._cheapest[Shape(batch, self._lengths[bisect_left(self._lengths, length)])]

    def run_s(self, rows: int, length: int) -> float:
        """What encoding a batch costs; nothing where it is empty."""
        return self.seconds[self.shape_for(rows, length)] if rows else 0.0

    def better_together(self, rows: int, longest: int, length: int) -> bool:
        """Whether one more text of `length` tokens joins a batch of `rows` × `longest`, or is cheaper by itself."""
        if rows + 1 > self._batches[-1] or max(longest, length) > self._lengths[-1]:  # another release may cut later
            return False
        together_s = self.run_s(rows + 1, max(longest, length))
        return together_s <= self.run_s(rows, longest) + self.run_s(1, length)

    def max_batch_size(self) -> int:
        """The smallest batch that is encoded at nearly the best rate, by short texts, which most queries are."""
        rates = [(batch, batch / self.run_s(batch, self._lengths[0])) for batch in self._batches]
        best = max(rate for _, rate in rates)
        return next(batch for batch, rate in rates if rate >= GOOD_RATE * best)

    def _cheapest_around(self, shape: Shape) -> Shape:
        covering = (one for one in self.seconds if one.batch >= shape.batch and one.length >= shape.length)
        return min(covering, key=self.seconds.__getitem__)
