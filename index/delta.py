"""Ads that came after the graphs were built: appended by one thread, scanned exactly by any number."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.ads import FIELD_NAMES, AdTable, FieldName
from index.routing import SegmentKey

_FIRST_ROWS = 64
_NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values of a field that stand for none."""


class GrowingScan:
    """Vectors and rows of one segment's later ads. What a reader has taken stays as it is."""

    def __init__(self, key: SegmentKey, dim: int) -> None:
        """Start empty."""
        self.key = key
        self._vectors = np.empty((_FIRST_ROWS, dim), dtype=np.float32)
        self._rows = np.empty(_FIRST_ROWS, dtype=np.int64)
        self._count = 0

    def append(self, row: int, vector: NDArray[np.float32]) -> int:
        """Add one ad, of a higher row than those before; gives its position."""
        position = self._count
        if position == len(self._rows):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._vectors[position] = vector
        self._rows[position] = row
        self._count = position + 1  # last: now it can be seen
        return position

    def __len__(self) -> int:
        return self._count

    def taken(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (n,) and vectors (n, dim) as of now."""
        count = self._count  # before the arrays: those that there are later hold as many at least
        return self._rows[:count], self._vectors[:count]


class LiveAds:
    """The ads of a base, immutable, and after them those that came since. Safe to read from several threads."""

    def __init__(self, base: AdTable) -> None:
        """Start with the base alone."""
        self.base = base
        self._base_count = len(base)
        self._later_ids: list[bytes] = []
        self._later: list[bytes] = []
        self._bids: dict[int, float | None] = {}
        """By row, where it was changed since."""

    def __len__(self) -> int:
        return self._base_count + len(self._later)

    def append(self, ad_id: str, fields: Mapping[str, Any]) -> int:
        """Add one ad; gives its row."""
        # As JSON: a third of the memory of its objects, and nothing that the garbage collector has to walk.
        self._later_ids.append(orjson.dumps(ad_id))
        given = {name: value for name in FIELD_NAMES if (value := fields.get(name)) not in _NOTHING}
        self._later.append(orjson.dumps(given))
        return self._base_count + len(self._later) - 1

    def set_bid(self, row: int, bid: float | None) -> None:
        """Change what an ad offers."""
        self._bids[row] = bid

    def json_ids(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The ids of some rows as JSON strings, quotes included."""
        if not len(rows) or rows.max() < self._base_count:
            return self.base.json_ids(rows)
        in_base = iter(self.base.json_ids(rows[rows < self._base_count]))
        return [
            next(in_base) if row < self._base_count else self._later_ids[row - self._base_count]
            for row in rows.tolist()
        ]

    def field(self, name: FieldName, rows: NDArray[np.int64]) -> list[Any]:
        """Values of one field, as JSON would have them; None where there is none, or an empty one."""
        in_base = iter(self.base.field(name, rows[rows < self._base_count]))
        values = [
            next(in_base) if row < self._base_count else self._later_fields(row).get(name) for row in rows.tolist()
        ]
        if name == "bid" and self._bids:
            return [self._bids.get(row, value) for row, value in zip(rows.tolist(), values, strict=True)]
        return values

    def later_ads(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and fields of ads that are not in the base."""
        for row in rows.tolist():
            yield orjson.loads(self._later_ids[row - self._base_count]), self._later_fields(row)

    def _later_fields(self, row: int) -> dict[str, Any]:
        fields: dict[str, Any] = orjson.loads(self._later[row - self._base_count])
        return fields
