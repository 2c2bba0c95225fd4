"""What a batch will cost, learned from the batches that ran: a + b × padded tokens to encode, c to search a query.

Least squares with exponential forgetting, as BentoML fits duration to batch size, but over padded tokens, which is what
a CPU is charged for (docs/experiments.md, "batch forming"), and on the monotonic clock.
"""

from dataclasses import dataclass

FORGETTING = 0.98
"""Weight of a batch after each one that follows: about the last fifty count."""
MOST_TIMES = 4
"""What a batch may teach at most, in predictions. A process that stood still for a second makes one look as if it had
taken one, and what is predicted from that has queries refused; a change that lasts is believed some batches later."""


@dataclass(frozen=True, slots=True)
class BatchCost:
    """What one batch took."""

    lengths: list[int]
    """Token counts of what had to be encoded."""
    encode_s: float
    queries: int
    search_s: float

    @property
    def padded_tokens(self) -> int:
        """What the encoder was charged for."""
        return max(self.lengths, default=0) * len(self.lengths)


class CostModel:
    """Predicts seconds of worker time, none before the first batch.

    Not thread-safe: its owner holds a lock, or calls it from one thread.
    """

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._queries = self._search_s = 0.0
        self._a = self._b = self._c = 0.0

    def learn(self, batch: BatchCost) -> None:
        """Take a finished batch into account."""
        search_s = _credible(batch.search_s, self.batch_s(batch.queries, 0))
        self._queries = FORGETTING * self._queries + batch.queries
        self._search_s = FORGETTING * self._search_s + search_s
        self._c = self._search_s / self._queries
        if batch.padded_tokens:
            encode_s = _credible(batch.encode_s, self.batch_s(0, batch.padded_tokens))
            self._learn_encode(float(batch.padded_tokens), encode_s)

    def _learn_encode(self, x: float, y: float) -> None:
        self._weight = FORGETTING * self._weight + 1
        self._x = FORGETTING * self._x + x
        self._y = FORGETTING * self._y + y
        self._xx = FORGETTING * self._xx + x * x
        self._xy = FORGETTING * self._xy + x * y
        spread = self._weight * self._xx - self._x * self._x
        slope = (self._weight * self._xy - self._x * self._y) / spread if spread > 1e-6 * self._xx else -1.0
        intercept = (self._y - slope * self._x) / self._weight
        if slope < 0 or intercept < 0:  # too few different lengths to tell the two apart
            slope, intercept = self._y / self._x, 0.0
        self._a, self._b = intercept, slope

    def batch_s(self, queries: int, padded_tokens: float) -> float:
        """Seconds from the start of a batch to its last answer."""
        return (self._a + self._b * padded_tokens if padded_tokens else 0.0) + self._c * queries

    def backlog_s(self, queries: int, tokens: float, batch_size: float) -> tuple[float, float]:
        """Seconds of encoding and of searching for waiting queries that are taken in batches of this size."""
        runs = queries / max(1.0, batch_size) if tokens else 0.0
        return self._a * runs + self._b * tokens, self._c * queries


def _credible(observed_s: float, predicted_s: float) -> float:
    """What is learned from an observation; all of the first one."""
    return min(observed_s, MOST_TIMES * predicted_s) if predicted_s else observed_s
