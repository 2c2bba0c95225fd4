"""The ads' columns: ids in memory, everything else mapped from disk until an answer asks for it."""

import math
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.store import ArtifactError
from index.ids import IdColumn

FieldName = Literal[
    "title",
    "description",
    "advertiser_id",
    "campaign_id",
    "category",
    "market",
    "language",
    "devices",
    "bid",
    "landing_url",
    "attrs",
]
"""What an answer may carry beside an ad's id and score."""

FIELD_NAMES: tuple[FieldName, ...] = get_args(FieldName)
_NUMBER_FIELDS: frozenset[FieldName] = frozenset({"bid"})
_TEXT_FIELDS = tuple(name for name in FIELD_NAMES if name not in _NUMBER_FIELDS)
_IDS_A_STEP = 500
"""About 0.3 ms; without steps the interpreter's lock changes hands every 5 ms."""
_PAUSE_S = 50e-6
_JSON_FIELDS: frozenset[FieldName] = frozenset({"market", "language", "devices", "attrs"})


class TextColumn:
    """Strings as one UTF-8 blob and the n + 1 offsets between them (Arrow's layout); an empty one stands for none."""

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.blob = blob
        self._bytes = blob.data
        self.offsets = offsets

    @classmethod
    def load(cls, directory: Path, name: str) -> Self:
        """Map the two files of a column.

        Raises:
            ArtifactError: a file cannot be mapped, or the two do not belong together.
        """
        blob = load_array(directory / f"{name}.blob.npy", np.uint8, ndim=1)
        offsets = load_array(directory / f"{name}.offsets.npy", np.int64, ndim=1)
        if not len(offsets) or offsets[-1] != len(blob):
            raise ArtifactError(f"{directory / name}.offsets.npy: does not end at the {len(blob)} bytes of its blob")
        return cls(blob, offsets)

    def save(self, directory: Path, name: str) -> None:
        """Write the two files of a column."""
        np.save(directory / f"{name}.blob.npy", self.blob)
        np.save(directory / f"{name}.offsets.npy", self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def joined(self, rows: NDArray[np.int64], later: "TextColumn") -> "TextColumn":
        """The strings of some rows, given in rising order, and after them those of another column."""
        lengths = np.concatenate([np.diff(self.offsets)[rows], np.diff(later.offsets)])
        ends = np.flatnonzero(np.diff(rows, append=-1) != 1)  # of runs of rows, which are copied as one
        starts = np.concatenate([[0], ends + 1])[: len(ends)]
        runs = [
            self.blob[self.offsets[first] : self.offsets[last + 1]]
            for first, last in zip(rows[starts], rows[ends], strict=True)
        ]
        return TextColumn(np.concatenate([*runs, later.blob]), np.concatenate([[0], np.cumsum(lengths)]))

    def take(self, rows: NDArray[np.int64]) -> list[memoryview]:
        """The encoded strings of some rows."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self._bytes[start:end] for start, end in zip(starts, ends, strict=True)]


class TextColumnBuilder:
    """Collects encoded strings in the order of their future rows."""

    def __init__(self) -> None:
        """Start empty."""
        self._blob = bytearray()
        self._offsets = array("q", [0])

    def append(self, value: bytes) -> None:
        """Add one string; an empty one stands for none."""
        self._blob += value
        self._offsets.append(len(self._blob))

    def build(self) -> TextColumn:
        """The column of all strings so far; nothing may be appended afterwards."""
        return TextColumn(np.frombuffer(self._blob, dtype=np.uint8), np.frombuffer(self._offsets, dtype=np.int64))


class Ads(Protocol):
    """The ads of an index by row; safe to read from several threads."""

    def __len__(self) -> int:
        """How many rows there are."""

    def json_ids(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The ids of some rows as JSON strings, quotes included."""

    def field(self, name: FieldName, rows: NDArray[np.int64]) -> list[Any]:
        """Values of one field, as JSON would have them; None where there is none, or an empty one."""


class AdTable:
    """The ads of an index by row; immutable, and safe to read from several threads."""

    def __init__(
        self,
        ad_ids: Iterable[str],
        texts: Mapping[FieldName, TextColumn],
        numbers: Mapping[FieldName, NDArray[np.float64]],
    ) -> None:
        """Take columns of equal length; `AdTableBuilder` and `load` are the usual ways in."""
        self.ids = IdColumn(ad_ids)
        self.texts = texts
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ad_ids(self) -> list[str]:
        """The ads' own ids, of all rows."""
        return list(map(orjson.loads, self.ids.all()))

    def json_ids(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The ids of some rows as JSON strings, quotes included."""
        return self.ids.take(rows)

    def field(self, name: FieldName, rows: NDArray[np.int64]) -> list[Any]:
        """Values of one field, as JSON would have them; None where the feed gave none, or an empty one."""
        if name in _NUMBER_FIELDS:
            return [None if math.isnan(value) else value for value in self.numbers[name][rows].tolist()]
        encoded = self.texts[name].take(rows)
        if name in _JSON_FIELDS:
            return [orjson.loads(value) if value else None for value in encoded]
        return [str(value, "utf-8") if value else None for value in encoded]

    def joined(self, rows: NDArray[np.int64], later: "AdTable") -> "AdTable":
        """The ads of some rows, given in rising order, and after them those of another table."""
        json_ids = self.ids.take(rows) + later.ids.all()
        texts = {name: column.joined(rows, later.texts[name]) for name, column in self.texts.items()}
        numbers = {name: np.concatenate([of[rows], later.numbers[name]]) for name, of in self.numbers.items()}
        return AdTable(map(orjson.loads, json_ids), texts, numbers)

    def with_bids(self, bids: Sequence[float | None]) -> "AdTable":
        """The same ads with other bids, one each."""
        table = copy(self)
        table.numbers = {**self.numbers, "bid": np.array([math.nan if bid is None else bid for bid in bids])}
        return table

    def save(self, directory: Path) -> None:
        """Write all columns into an existing directory."""
        ids = TextColumnBuilder()
        for ad_id in self.ad_ids:
            ids.append(ad_id.encode())
        ids.build().save(directory, "ad_id")
        for name, column in self.texts.items():
            column.save(directory, name)
        for name, numbers in self.numbers.items():
            np.save(directory / f"{name}.npy", numbers)

    @classmethod
    def load(cls, directory: Path, ad_count: int) -> Self:
        """Map the columns that `save` wrote; a million ads take about a second, all of it for their ids.

        Raises:
            ArtifactError: a column is missing, unreadable or not of `ad_count` ads.
        """
        ids = TextColumn.load(directory, "ad_id")
        texts = {name: TextColumn.load(directory, name) for name in _TEXT_FIELDS}
        numbers = {name: load_array(directory / f"{name}.npy", np.float64, ndim=1) for name in _NUMBER_FIELDS}
        lengths: dict[str, int] = {"ad_id": len(ids)}
        lengths |= {name: len(text) for name, text in texts.items()}
        lengths |= {name: len(values) for name, values in numbers.items()}
        for name, length in lengths.items():
            if length != ad_count:
                raise ArtifactError(f"{directory / name}: a column of {length} ads where {ad_count} are expected")
        return cls(_read_ids(ids, ad_count), texts, numbers)


class AdTableBuilder:
    """Collects ads in the order of their future rows."""

    def __init__(self) -> None:
        """Start empty."""
        self._ad_ids: list[str] = []
        self._texts = {name: TextColumnBuilder() for name in _TEXT_FIELDS}
        self._numbers = {name: array("d") for name in _NUMBER_FIELDS}

    def append(self, ad_id: str, fields: Mapping[str, Any]) -> None:
        """Add one ad; a field that is absent, None or empty is stored as none."""
        self._ad_ids.append(ad_id)
        for name, column in self._texts.items():
            value = fields.get(name)
            if not value:
                column.append(b"")
            else:
                column.append(orjson.dumps(value) if name in _JSON_FIELDS else value.encode())
        for name, numbers in self._numbers.items():
            value = fields.get(name)
            numbers.append(math.nan if value is None else value)

    def build(self) -> AdTable:
        """The table of all ads so far; nothing may be appended afterwards."""
        texts = {name: column.build() for name, column in self._texts.items()}
        numbers = {name: np.frombuffer(numbers, dtype=np.float64) for name, numbers in self._numbers.items()}
        return AdTable(self._ad_ids, texts, numbers)


def _read_ids(column: TextColumn, ad_count: int) -> Iterator[str]:
    """All ids, in steps after which other threads get to run: a service may be answering beside this."""
    for start in range(0, ad_count, _IDS_A_STEP):
        rows = np.arange(start, min(start + _IDS_A_STEP, ad_count))
        yield from (str(value, "utf-8") for value in column.take(rows))
        time.sleep(_PAUSE_S)


def load_array(path: Path, dtype: type[np.generic], *, ndim: int) -> NDArray[Any]:
    """Map one `.npy` file for reading.

    Raises:
        ArtifactError: it is missing, not an array file, or of another type or rank.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing") from error
    except (ValueError, OSError, EOFError) as error:
        raise ArtifactError(f"{path}: cannot be mapped as an array: {error}") from error
    if array.dtype != dtype or array.ndim != ndim:
        found = f"{array.ndim}-dimensional {array.dtype}"
        raise ArtifactError(f"{path}: is {found} where {ndim}-dimensional {np.dtype(dtype)} is expected")
    return array
