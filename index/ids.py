"""The ids of ads by row, as answers carry them: JSON strings, quotes included."""

from array import array
from collections.abc import Iterable

import numpy as np
import orjson
from numpy.typing import NDArray

SHORT_SHARE = 0.99
"""Of the ids. One long id must not make room for as long a one in every row."""
_ROWS_A_STEP = 5_000
"""About 0.5 ms, after which other threads may run."""


class IdColumn:
    """Ids side by side: strings all over the heap are a cache miss each (docs/experiments.md, "one request").

    The closing quote keeps numpy from cutting an id that ends in NUL.
    """

    def __init__(self, ad_ids: Iterable[str]) -> None:
        """Take them in the order of their rows."""
        blob, offsets = bytearray(), array("q", [0])
        for ad_id in ad_ids:
            blob += orjson.dumps(ad_id)
            offsets.append(len(blob))
        ends = np.frombuffer(offsets, dtype=np.int64)
        lengths = ends[1:] - ends[:-1]
        width = int(np.quantile(lengths, SHORT_SHARE, method="higher")) if len(lengths) else 1
        self.short = _padded(np.frombuffer(blob, dtype=np.uint8), lengths, width)
        """By row; empty where the id is among the long ones."""
        self.long = {
            row: bytes(blob[offsets[row] : offsets[row + 1]]) for row in np.flatnonzero(lengths > width).tolist()
        }
        """Wider than `short`, by row."""

    def __len__(self) -> int:
        return len(self.short)

    def __getitem__(self, row: int) -> bytes:
        return bytes(self.short[row]) or self.long[row]

    def take(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Of some rows."""
        found: list[bytes] = self.short[rows].tolist()
        if b"" in found:
            return [json_id or self.long[row] for json_id, row in zip(found, rows.tolist(), strict=True)]
        return found

    def all(self) -> list[bytes]:
        """Of all rows."""
        return self.take(np.arange(len(self)))


def _padded(blob: NDArray[np.uint8], lengths: NDArray[np.int64], width: int) -> NDArray[np.bytes_]:
    """Strings of some lengths, one after another in a blob, as an array; empty those that are wider."""
    padded = np.zeros((len(lengths), width), dtype=np.uint8)
    end = 0
    for start in range(0, len(lengths), _ROWS_A_STEP):
        theirs = lengths[start : start + _ROWS_A_STEP]
        begin, end = end, end + int(theirs.sum())
        fits = theirs <= width
        filled = fits[:, np.newaxis] & (np.arange(width) < theirs[:, np.newaxis])
        padded[start : start + _ROWS_A_STEP][filled] = blob[begin:end][np.repeat(fits, theirs)]
    return padded.view(f"S{width}").ravel()
