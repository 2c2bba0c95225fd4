"""What decides by row whether an ad may be shown: columns beside the graphs, changed in place while they are read.

    row       servable devices advertiser category campaign bid schedule negatives
    campaign  servable pass_through schedule negatives hash

One thread writes, any number read. A reader takes `count` once and looks at no row from there on: whatever such a row
refers to was entered before it. A flag that changes meanwhile is seen by the next look at it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.store import ArtifactError
from index.ad_schedule import Schedule, Schedules
from index.ads import TextColumn, TextColumnBuilder, load_array
from index.keywords import KeywordLists
from index.targeting import Campaign
from index.vocabulary import Categories, Vocabulary

ALL_DEVICES = np.uint32(0xFFFF_FFFF)
MAX_DEVICES = 31
"""Names below this number have a bit of their own; in practice there are three to five. The others share the last."""
_ROW_TYPES: dict[str, type[np.generic]] = {
    "active": np.bool_,
    "servable": np.bool_,
    "devices": np.uint32,
    "advertiser": np.int32,
    "category": np.int32,
    "campaign": np.int32,
    "bid": np.float32,
    "schedule": np.int32,
    "negatives": np.int32,
}
_CAMPAIGN_TYPES: dict[str, type[np.generic]] = {
    "servable": np.bool_,
    "pass_through": np.float32,
    "schedule": np.int32,
    "negatives": np.int32,
    "hash": np.uint64,
}
T = TypeVar("T")
_VOCABULARIES = ("advertisers", "categories", "campaigns", "devices")


class Targeted(Protocol):
    """An ad, as far as eligibility goes; `index.feed.FeedAd` is one."""

    advertiser_id: str | None
    campaign_id: str | None
    category: str | None
    devices: list[str] | None
    bid: float | None
    negative_keywords: list[str] | None

    @property
    def is_active(self) -> bool:
        """Whether its own status lets it be shown."""

    @property
    def schedule(self) -> Schedule:
        """When it is shown."""


class GrowingArrays:
    """Arrays of one length that grow at the end."""

    def __init__(self, types: dict[str, type[np.generic]], arrays: dict[str, NDArray[Any]] | None = None) -> None:
        """Start with some arrays of equal length, or with none."""
        self._arrays = arrays or {name: np.empty(0, dtype) for name, dtype in types.items()}
        self.count = len(next(iter(self._arrays.values())))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array, longer than `count`; to be looked up anew for each use, since growth replaces it."""
        return self._arrays[name]

    def append(self, **values: object) -> int:
        """Add one value to each; gives its position, which counts once all are written."""
        position = self.count
        if position == len(self._arrays["servable"]):
            size = max(1024, position + position // 4)
            self._arrays = {name: _grown(array, size) for name, array in self._arrays.items()}
        for name, value in values.items():
            self._arrays[name][position] = value
        self.count = position + 1
        return position

    def selected(self, positions: NDArray[np.int64]) -> "GrowingArrays":
        """A copy of some positions."""
        return GrowingArrays({}, {name: array[positions] for name, array in self._arrays.items()})

    def save(self, directory: Path, prefix: str) -> None:
        """Write one file for each."""
        for name, array in self._arrays.items():
            np.save(directory / f"{prefix}.{name}.npy", array[: self.count])

    @classmethod
    def load(cls, directory: Path, prefix: str, types: dict[str, type[np.generic]]) -> Self:
        """Read what `save` wrote, into memory, since they are changed there.

        Raises:
            ArtifactError: a file is missing, unreadable, or of another length than the others.
        """
        arrays = {
            name: np.array(load_array(directory / f"{prefix}.{name}.npy", dtype, ndim=1))
            for name, dtype in types.items()
        }
        if len({len(array) for array in arrays.values()}) > 1:
            raise ArtifactError(f"{directory}: the {prefix} columns are of different lengths")
        return cls(types, arrays)


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    grown = np.empty(size, array.dtype)
    grown[: len(array)] = array
    return grown


class EligibilityColumns:
    """Who may see which ad, by row."""

    def __init__(self) -> None:
        """Start without rows; campaign 0 is that of the ads that have none."""
        self.rows = GrowingArrays(_ROW_TYPES)
        self.campaigns = GrowingArrays(_CAMPAIGN_TYPES)
        self.campaign_names = Vocabulary()
        self.advertiser_names = Vocabulary()
        self.category_names = Categories()
        self.device_names = Vocabulary()
        self.schedules = Schedules()
        self.negatives = KeywordLists()
        self.state_changes = 0
        """How often a row was made servable or not, or could have been."""
        self._partial_campaigns = 0
        self.gone_count = 0
        """Rows whose ads were deleted or written anew."""
        self._add_campaign("")

    @property
    def count(self) -> int:
        """Rows that may be looked at."""
        return self.rows.count

    @property
    def inactive_count(self) -> int:
        """Ads whose own status keeps them from being shown."""
        return self.count - int(np.count_nonzero(self.rows["active"][: self.count]))

    @property
    def has_partial_campaigns(self) -> bool:
        """Whether any campaign takes part in a share of the requests only."""
        return self._partial_campaigns > 0

    def append(self, ad: Targeted) -> int:
        """Enter an ad; gives its row."""
        campaign = self._campaign(ad.campaign_id)
        return self.rows.append(
            active=ad.is_active,
            servable=ad.is_active and self.campaigns["servable"][campaign],
            devices=self._device_bits(ad.devices),
            advertiser=self.advertiser_names.add(ad.advertiser_id),
            category=self.category_names.add(ad.category),
            campaign=campaign,
            bid=np.nan if ad.bid is None else ad.bid,
            schedule=self.schedules.number_of(ad.schedule),
            negatives=self.negatives.number_of(ad.negative_keywords or ()),
        )

    def set_active(self, row: int, active: bool) -> None:
        """Let an ad be shown, or stop it."""
        self.rows["active"][row] = active
        self.state_changes += 1
        self.rows["servable"][row] = active and self.campaigns["servable"][self.rows["campaign"][row]]

    def retire(self, row: int) -> None:
        """Let nobody see a row any more: its ad was deleted or written anew. At most once a row."""
        self.set_active(row, active=False)
        self.gone_count += 1

    def set_bid(self, row: int, bid: float | None) -> None:
        """Change what an ad offers."""
        self.rows["bid"][row] = np.nan if bid is None else bid

    def set_campaign(self, campaign: Campaign) -> None:
        """Take over what a campaign says, for the ads it has and will have."""
        number = self._campaign(campaign.campaign_id)
        columns = self.campaigns
        was_partial = columns["pass_through"][number] < 1
        columns["pass_through"][number] = campaign.pass_through_rate  # as float32, to which almost 1 is 1
        self._partial_campaigns += int(columns["pass_through"][number] < 1) - int(was_partial)
        columns["schedule"][number] = self.schedules.number_of(campaign.schedule)
        columns["negatives"][number] = self.negatives.number_of(campaign.negative_keywords or ())
        if columns["servable"][number] != campaign.is_servable:
            columns["servable"][number] = campaign.is_servable
            of_campaign = np.flatnonzero(self.rows["campaign"][: self.count] == number)
            self.rows["servable"][of_campaign] = self.rows["active"][of_campaign] & campaign.is_servable
            self.state_changes += len(of_campaign)

    def _campaign(self, campaign_id: str | None) -> int:
        number = self.campaign_names.find(campaign_id) if campaign_id else 0
        if number is None:
            assert campaign_id is not None
            number = self._add_campaign(campaign_id)
            self.campaign_names.add(campaign_id)
        return number

    def _add_campaign(self, campaign_id: str) -> int:
        return self.campaigns.append(
            servable=True, pass_through=1.0, schedule=0, negatives=0, hash=hash_of(campaign_id)
        )

    def _device_bits(self, devices: Iterable[str] | None) -> int:
        """No devices at all stand for every one."""
        bits = 0
        for name in devices or ():
            bits |= 1 << min(self.device_names.add(name.casefold()), MAX_DEVICES)
        return bits or int(ALL_DEVICES)

    def selected(self, rows: NDArray[np.int64]) -> "EligibilityColumns":
        """These rows only, none of which is gone, under new numbers; names are shared with this.

        Of schedules and lists of keywords only those stay that a row or a campaign refers to.
        """
        selected = copy(self)
        selected.rows = self.rows.selected(rows)
        selected.gone_count = 0
        selected.campaigns = self.campaigns.selected(np.arange(self.campaigns.count))
        selected.schedules = Schedules.of(_in_use(selected, "schedule", self.schedules.rows()))
        selected.negatives = KeywordLists.of(_in_use(selected, "negatives", self.negatives.texts()))
        return selected

    def save(self, directory: Path) -> None:
        """Write all into an existing directory."""
        self.rows.save(directory, "row")
        self.campaigns.save(directory, "campaign")
        for label, vocabulary in self._vocabularies().items():
            column = TextColumnBuilder()
            for name in vocabulary.names:
                column.append(name.encode())
            column.build().save(directory, label)
        distinct = {"schedules": self.schedules.rows(), "negatives": self.negatives.texts()}
        (directory / "distinct.json").write_bytes(orjson.dumps(distinct))

    @classmethod
    def load(cls, directory: Path, row_count: int) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, unreadable, or not of `row_count` rows.
        """
        columns = cls()
        columns.rows = GrowingArrays.load(directory, "row", _ROW_TYPES)
        columns.campaigns = GrowingArrays.load(directory, "campaign", _CAMPAIGN_TYPES)
        columns._partial_campaigns = int(np.count_nonzero(columns.campaigns["pass_through"][:] < 1))
        if columns.count != row_count:
            raise ArtifactError(f"{directory}: columns of {columns.count} ads where {row_count} are expected")
        names = {label: _read_names(directory, label) for label in _VOCABULARIES}
        columns.advertiser_names = Vocabulary(names["advertisers"])
        columns.category_names = Categories(names["categories"])
        columns.campaign_names = Vocabulary(names["campaigns"])
        columns.device_names = Vocabulary(names["devices"])
        path = directory / "distinct.json"
        try:
            distinct = orjson.loads(path.read_bytes())
            columns.schedules = Schedules.of(distinct["schedules"])
            columns.negatives = KeywordLists.of(distinct["negatives"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: cannot be read as schedules and negative keywords: {error}") from error
        return columns

    def _vocabularies(self) -> dict[str, Vocabulary]:
        names = (self.advertiser_names, self.category_names, self.campaign_names, self.device_names)
        return dict(zip(_VOCABULARIES, names, strict=True))


def _in_use(columns: EligibilityColumns, name: str, distinct: Sequence[T]) -> list[T]:
    """What a column of rows and campaigns refers to, to which its numbers are changed; 0 stays 0."""
    holders = (columns.rows, columns.campaigns)
    used = np.unique(np.concatenate([[0], *(holder[name] for holder in holders)]))
    numbers = np.zeros(used[-1] + 1, dtype=np.int32)
    numbers[used] = np.arange(len(used))
    for holder in holders:
        holder[name][:] = numbers[holder[name]]
    return [distinct[number] for number in used.tolist()]


def hash_of(text: str) -> int:
    """64 bits of a string, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _read_names(directory: Path, label: str) -> list[str]:
    column = TextColumn.load(directory, label)
    return [str(name, "utf-8") for name in column.take(np.arange(len(column)))]
