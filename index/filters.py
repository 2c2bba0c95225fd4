"""Which ads one request may get: its filters against the ads' columns.

Filters --Columns--> Rule: `passes(rows)`  what each row says by itself: state, device, bid, advertiser, …
                           `thins(rows)`   what depends on the request or on the other ads: pass-through, the cap
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.columns import MAX_DEVICES, EligibilityColumns, hash_of
from index.keywords import words_of


@dataclass(frozen=True, slots=True)
class Filters:
    """What a request says about the ads it can use; equal filters are one."""

    market: str | None = None
    language: str | None = None
    device: str | None = None
    exclude_advertisers: frozenset[str] = frozenset()
    exclude_categories: frozenset[str] = frozenset()
    """Each with all below it, as `Toys` is above `Toys > Puzzles`."""
    min_bid: float | None = None
    """An ad without a bid does not reach it."""
    max_per_advertiser: int | None = None
    utc_offset_minutes: int = 0
    """How far the searcher's clock is ahead of UTC."""

    @property
    def targets(self) -> Hashable:
        """What `Rule.targets`, and the choice of segments, depend on."""
        return (
            self.market,
            self.language,
            self.device,
            self.exclude_advertisers,
            self.exclude_categories,
            self.min_bid,
        )


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one query asks for."""

    top_k: int
    filters: Filters = NO_FILTERS
    query: str = ""
    """The text, for negative keywords."""
    request_id: str = ""
    """Decides, with the campaign, who passes where a campaign takes part in a share of the requests only."""
    at: float = 0.0
    """When it is asked, in seconds since 1970, for schedules."""
    effort: float = 1.0
    """Share of the tuned `ef_search` to spend; less is faster and finds a little less."""


Rows = NDArray[np.int64] | slice
"""Some rows; a slice of the columns is looked at where it lies."""


@dataclass(slots=True)
class Rule:
    """The filters of one request, ready to be held against rows. For one search: it sees no row added since."""

    columns: EligibilityColumns
    device_bit: int | None = None
    barred_advertisers: NDArray[np.bool_] | None = None
    """By number."""
    barred_categories: NDArray[np.bool_] | None = None
    min_bid: float | None = None
    open_schedules: NDArray[np.bool_] | None = None
    """By number; None where all are open."""
    barred_lists: NDArray[np.bool_] | None = None
    """By number of the list of negative keywords; None where none forbids the query."""
    max_per_advertiser: int | None = None
    request_hash: int | None = None
    """None where every campaign takes part in all requests."""

    def passes(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each row may be shown to this request, less what `thins` decides; one value a row."""
        ok = self.admits(rows)
        if self._has_targets:
            ok &= self.targets(rows)
        return ok

    def admits(self, rows: Rows) -> NDArray[np.bool_]:
        """As `passes`, but only what changes with updates, with time and with the query's words."""
        columns = self.columns.rows
        ok: NDArray[np.bool_] = columns["servable"][rows].copy()
        if self.open_schedules is not None:
            ok &= self.open_schedules.take(columns["schedule"][rows])
        if self.barred_lists is not None:
            ok &= ~self.barred_lists.take(columns["negatives"][rows])
        if self.open_schedules is not None or self.barred_lists is not None:
            self._bar_campaigns(rows, ok)
        return ok

    def _bar_campaigns(self, rows: Rows, ok: NDArray[np.bool_]) -> None:
        """Take out of `ok` the rows whose campaign is not open: of many rows, after a look at all campaigns instead."""
        campaign, count = self.columns.rows["campaign"], self.columns.campaigns.count
        if len(ok) <= count:
            ok &= self._open_campaigns(campaign[rows])
        elif not (is_open := self._open_campaigns(slice(0, count))).all():
            ok &= is_open.take(campaign[rows], mode="clip")

    def _open_campaigns(self, campaigns: Rows) -> NDArray[np.bool_]:
        """Whether the schedule of each is open, and its negative keywords allow the query."""
        columns = self.columns.campaigns
        ok = np.ones(len(columns["servable"][campaigns]), dtype=np.bool_)
        if self.open_schedules is not None:
            ok &= _known(self.open_schedules, columns["schedule"][campaigns])
        if self.barred_lists is not None:
            ok &= ~_known(self.barred_lists, columns["negatives"][campaigns])
        return ok

    def targets(self, rows: Rows) -> NDArray[np.bool_]:
        """As `passes`, but only what is the same for all requests of equal filters."""
        columns = self.columns.rows
        ok = np.ones(len(columns["servable"][rows]), dtype=np.bool_)
        if self.device_bit is not None:
            ok &= (columns["devices"][rows] & np.uint32(self.device_bit)) != 0
        if self.barred_advertisers is not None:
            ok &= ~self.barred_advertisers.take(columns["advertiser"][rows])
        if self.barred_categories is not None:
            ok &= ~self.barred_categories.take(columns["category"][rows])
        if self.min_bid is not None:
            ok &= columns["bid"][rows] >= self.min_bid  # NaN, which stands for no bid, is not
        return ok

    @property
    def bars_nothing(self) -> bool:
        """Whether all ads pass that may be shown to anybody now."""
        return self.open_schedules is None and self.barred_lists is None and not self._has_targets

    @property
    def _has_targets(self) -> bool:
        targets = (self.device_bit, self.barred_advertisers, self.barred_categories, self.min_bid)
        return any(target is not None for target in targets)

    @property
    def may_thin(self) -> bool:
        """Whether `thins` can take anything away."""
        return self.max_per_advertiser is not None or self.request_hash is not None

    def thins(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows stay; those that pass, best first."""
        stays = np.ones(len(rows), dtype=np.bool_)
        if self.request_hash is not None:
            stays = self._take_part(rows, self.request_hash)
        if self.max_per_advertiser is not None:
            left = np.flatnonzero(stays)
            advertisers = self.columns.rows["advertiser"][rows[left]]
            stays[left] = (advertisers == 0) | (_occurrence(advertisers) < self.max_per_advertiser)
        return stays

    def _take_part(self, rows: NDArray[np.int64], request_hash: int) -> NDArray[np.bool_]:
        """Whether hash(request id, campaign) is below the campaign's pass-through rate."""
        campaigns = self.columns.campaigns
        campaign = self.columns.rows["campaign"][rows]
        drawn = mix(campaigns["hash"][campaign] ^ np.uint64(request_hash))
        # The 53 highest bits, as many as a float64 tells apart, as a number from 0 to below 1.
        below: NDArray[np.bool_] = (drawn >> np.uint64(11)) * 2.0**-53 < campaigns["pass_through"][campaign]
        return below


def rule_for(columns: EligibilityColumns, wanted: Wanted) -> Rule:
    """Prepare a request's filters; the cost is in the names it gives, not in the ads there are."""
    filters = wanted.filters
    return Rule(
        columns,
        device_bit=_device_bit(columns, filters.device),
        barred_advertisers=_barred_advertisers(columns, filters.exclude_advertisers),
        barred_categories=_barred_categories(columns, filters.exclude_categories),
        min_bid=filters.min_bid,
        open_schedules=_open_schedules(columns, wanted),
        barred_lists=_barred_lists(columns, wanted.query),
        max_per_advertiser=filters.max_per_advertiser,
        request_hash=hash_of(wanted.request_id) if columns.has_partial_campaigns else None,
    )


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64 bits over all bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def _device_bit(columns: EligibilityColumns, device: str | None) -> int | None:
    """One that no ad names, or that has no bit of its own, is seen by the ads for all devices, and by no others."""
    if device is None:
        return None
    number = columns.device_names.find(device.casefold())
    return 1 if number is None or number >= MAX_DEVICES else 1 << number  # bit 0 is of no device's


def _barred_advertisers(columns: EligibilityColumns, names: frozenset[str]) -> NDArray[np.bool_] | None:
    numbers = [number for name in names if (number := columns.advertiser_names.find(name))]
    return _marked(len(columns.advertiser_names), numbers) if numbers else None


def _barred_categories(columns: EligibilityColumns, names: frozenset[str]) -> NDArray[np.bool_] | None:
    """Each name bars the category of that name and all below it."""
    numbers = [number for name in names for number in columns.category_names.within(name)]
    return _marked(len(columns.category_names), numbers) if numbers else None


def _open_schedules(columns: EligibilityColumns, wanted: Wanted) -> NDArray[np.bool_] | None:
    if len(columns.schedules) == 1:  # the one that is always open
        return None
    found = columns.schedules.open(wanted.at, wanted.filters.utc_offset_minutes)
    return None if found.all() else found


def _barred_lists(columns: EligibilityColumns, query: str) -> NDArray[np.bool_] | None:
    count = len(columns.negatives)  # before they are searched: one that is being entered may be found already
    if count == 1:  # the empty one
        return None
    barred = [number for number in columns.negatives.forbidding(words_of(query)) if number < count]
    return _marked(count, barred) if barred else None


def _known(by_number: NDArray[np.bool_], numbers: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Look up what a campaign refers to; a number that it got after the rule was made counts as the last one then."""
    found: NDArray[np.bool_] = by_number.take(numbers, mode="clip")
    return found


def _marked(size: int, numbers: Iterable[int]) -> NDArray[np.bool_]:
    marked = np.zeros(size, dtype=np.bool_)
    marked[list(numbers)] = True
    return marked


def _occurrence(values: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many equal values come before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    before = np.empty(len(values), dtype=np.int64)
    before[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return before
