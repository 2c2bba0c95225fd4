"""Which of many calls are looked at, and the mean of what was seen in the last of them."""

import math
from collections import deque
from random import Random


class Sampler:
    """Picks a share of all calls, by seed: what is left until the next one is drawn once for each that is picked."""

    def __init__(self, share: float, seed: int) -> None:
        """Take a share of 0 to 1."""
        self._share = share
        self._random = Random(seed)  # noqa: S311 - which queries are looked at is no secret
        self._left = self._gap()

    def picks(self) -> bool:
        """Whether this call is one of the share; a decrement where it is not.

        Calls of several threads at once may count as one, which changes the share by nothing that matters.
        """
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._gap()
        return True

    def _gap(self) -> float:
        """Calls up to the next that is picked, it included: geometrically distributed, as if each were drawn for."""
        if self._share <= 0:
            return math.inf
        if self._share >= 1:
            return 1
        return math.ceil(math.log(1 - self._random.random()) / math.log1p(-self._share)) or 1


class RollingMean:
    """The mean of the last values."""

    def __init__(self, size: int) -> None:
        """Keep the last `size` values."""
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> float:
        """The mean, this value included."""
        self._values.append(value)
        return sum(self._values) / len(self._values)
