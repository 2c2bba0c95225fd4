"""Which releases this process serves, and how one takes over from another while requests are answered.

    stable    answers                       canary    answers its share, and loses it when it fails or is slow
    previous  loaded, for a rollback        shadow    gets copies of requests, never answers

A new release is loaded, verified and warmed up on a thread of its own. Then one attribute changes, on the event loop,
between two requests: each request takes its release when it is admitted and keeps it. A release that nobody holds any
more is freed by its reference count.
"""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol

from cores import NICE
from memory import return_freed_memory
from service.background import Refusal, attempt_in_background
from service.errors import ReleaseError
from service.loading import Loaded, MemoryShortError
from service.metrics import Metrics
from service.release import Release
from service.roles import ROLES, Role, Swap, Wanted
from service.settings import ReleaseSettings, Settings
from service.traffic import Traffic

HOUSEKEEPING_S = 1.0

logger = logging.getLogger(__name__)


class Load(Protocol):
    """Loads a release, blocking; `service.loading.ReleaseLoader.load` does."""

    def __call__(self, wanted: ReleaseSettings, held: Sequence[Loaded], go_on: Callable[[], None]) -> Loaded:
        """Load what is not held already; raises where it cannot be served, and what `go_on` raises between steps."""
        ...


class Releases:
    """Owns the releases. Everything but loading happens on the event loop."""

    def __init__(
        self, settings: Settings, metrics: Metrics, load: Load, *, clock: Callable[[], float] = monotonic
    ) -> None:
        """Prepare; nothing is served before `start`.

        Args:
            settings: what to begin with.
            metrics: what is served, and what became of it.
            load: loads a release; called on a thread.
            clock: seconds, by which the previous release is kept.
        """
        self.stable: Release | None = None
        self.canary: Release | None = None
        self.shadow: Release | None = None
        self.previous: Release | None = None
        self.shadow_share = 0.0
        """Of the requests, what the shadow is to get a copy of."""
        self.traffic = Traffic(metrics)
        self.on_retired: list[Callable[[Release], None]] = []
        """Called with each release that is dropped, so that nothing made with it keeps it in memory."""
        self.on_change: list[Callable[[], None]] = []
        """Called when releases or their shares have changed."""
        self._metrics = metrics
        self._load = load
        self._clock = clock
        self._keep_previous_s = settings.swap.keep_previous_ms / 1e3
        self._configured = self._wanted = Wanted.of(settings)
        self._refused: set[Role | None] = set()
        """Roles for which the settings name a release that was rejected; None stands for settings that say nothing."""
        self._canary_bounds = settings.canary
        self._held: dict[str, Loaded] = {}
        """By role, `previous` being one."""
        self._previous_until = 0.0
        self._rolled_back = False
        """Whether what is stable became so by a rollback."""
        self._freed = False
        self._stopping = False
        self._lock = asyncio.Lock()
        self._loading: dict[str, object] | None = None
        self._last_swap: Swap | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def held(self) -> list[Release]:
        """All that are loaded, the stable one first; none before that is."""
        stable = self._held.get("stable")
        return [loaded.release for loaded in dict.fromkeys([stable, *self._held.values()]) if stable and loaded]

    async def start(self) -> Release:
        """Load what the settings say. A canary or shadow that cannot be served is rejected, as in a swap.

        Raises:
            ReleaseError: the stable release cannot be served.
        """
        async with self._lock:  # the admin listener takes wishes already
            outcome = await self._attempt(self._wanted.stable, (), nice=0)
            if isinstance(outcome, Refusal):
                raise ReleaseError(outcome.reason)
            self._hold({"stable": outcome})
        self._refused |= await self._reach(("canary", "shadow"))
        self._housekeeping = asyncio.create_task(self._keep_house())
        return outcome.release

    async def stop(self) -> None:
        """End the housekeeping, and a load before its next step."""
        self._stopping = True
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping

    async def apply(self, settings: Settings) -> bool:
        """Serve what changed in the settings since they were last applied, and what was rejected then.

        What did not change stays as it is served, also where that came by `use` or `rollback`.

        Returns:
            Whether all of it is served now.
        """
        before, self._configured = self._configured, Wanted.of(settings)
        changed = [
            role for role in ROLES if role in self._refused or self._configured.section(role) != before.section(role)
        ]
        self._wanted = self._wanted.taking(changed, self._configured)
        refused = await self._reach(changed)
        mending = bool(self._refused)
        self._refused = self._refused.difference((*changed, None)) | refused
        if mending and not self._refused:
            self._note_mended()
        return not self._refused

    async def use(self, release: ReleaseSettings) -> dict[str, object]:
        """Make a release stable, whatever the settings say; its artifacts are looked at again.

        Returns:
            What came of it, as in `status`.
        """
        before = self._wanted.stable
        self._wanted = replace(self._wanted, stable=release)
        async with self._lock:
            swap = await self._swap("stable", release, list(self._held.values()))
        if swap.result == "rejected" and self._wanted.stable is release:
            self._wanted = replace(self._wanted, stable=before)
        return swap.describe()

    async def rollback(self) -> dict[str, object]:
        """Serve the previous release again, at once; what is stable now becomes the previous one.

        Raises:
            ReleaseError: none is loaded any more, or this would undo the rollback before.
        """
        previous, stable = self._held.get("previous"), self._held.get("stable")
        if previous is None or stable is None:
            raise ReleaseError("there is no previous release in memory to roll back to; name the one to use")
        if self._rolled_back:
            names = stable.release.name, previous.release.name
            raise ReleaseError("already rolled back to {}; to serve {} again, use it by its name".format(*names))
        self._wanted = replace(self._wanted, stable=previous.settings)
        self._make_stable(previous)
        self._rolled_back = True
        return self._record(Swap("rolled_back", previous.release.name, "stable")).describe()

    def reject(self, reason: str) -> None:
        """Record that settings could not be read, so that what they wish for stays unknown."""
        self._refused.add(None)
        self._record(Swap("rejected", None, None, reason))

    def status(self) -> dict[str, object]:
        """What is served, what is being loaded, and what came of the last wish for a release."""
        roles = {role: self._describe(role, loaded) for role, loaded in self._held.items()}
        return {
            **{role: roles.get(role) for role in (*ROLES, "previous")},
            "loading": self._loading,
            "last_swap": self._last_swap and self._last_swap.describe(),
        }

    def tick(self) -> None:
        """Drop the previous release when its time is over."""
        if self.previous is not None and self._clock() >= self._previous_until:
            logger.info("release %s is dropped", self.previous.name)
            self._hold({"previous": None})

    async def _reach(self, roles: Sequence[Role]) -> set[Role]:
        """Serve what is wanted; gives the roles whose release was rejected."""
        held = list(self._held.values())  # so that what leaves one role can be shared by another
        stable = self._wanted.pair("stable")
        self._hold({role: None for role in self._unwanted() if self._held[role].settings != stable})
        refused: set[Role] = set()
        async with self._lock:
            for role in roles:
                pair = self._wanted.pair(role)
                served = self._held.get(role)
                if pair is not None and (served is None or served.settings != pair):
                    held += [one for one in self._held.values() if one not in held]
                    if (await self._swap(role, pair, held)).result == "rejected":
                        refused.add(role)
        self._hold(dict.fromkeys(self._unwanted()))  # a canary that was to become stable, and could not
        return refused

    def _note_mended(self) -> None:
        """Let a rejection not be the last that is said when what was rejected is wanted no more."""
        if self.stable is not None and self._last_swap is not None and self._last_swap.result == "rejected":
            self._record(Swap("unchanged", self.stable.name, "stable", "the settings ask for what is served"))

    def _unwanted(self) -> list[Role]:
        return [role for role in ROLES if role in self._held and self._wanted.section(role) is None]

    async def _swap(self, role: Role, pair: ReleaseSettings, held: list[Loaded]) -> Swap:
        """Load a release and give it its role; the lock is held."""
        if (taken := self._taken(role, pair)) is not None:
            return self._record(Swap("rejected", pair.name, role, taken))
        started = self._clock()
        self._loading = {"release": pair.name, "role": role, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        outcome = await self._load_beside(pair, held)
        self._loading = None
        reason = None
        if isinstance(outcome, Refusal):
            result, reason = "rejected", outcome.reason
        elif self._wanted.pair(role) != pair:
            result, reason = "superseded", "another was wanted before it was loaded"
        elif outcome is self._held.get(role):
            result = "unchanged"
        else:
            result = "swapped"
            self._make_stable(outcome) if role == "stable" else self._hold({role: outcome})
        return self._record(Swap(result, pair.name, role, reason, self._clock() - started))

    def _taken(self, role: Role, pair: ReleaseSettings) -> str | None:
        """Why a name cannot be used: answers and metrics tell releases apart by their names."""
        for other, loaded in self._held.items():
            if loaded.settings.name == pair.name and loaded.settings != pair and (other != role or role == "stable"):
                return f"release {pair.name}: {other} has this name with other artifacts; expected a name of its own"
        return None

    async def _load_beside(self, pair: ReleaseSettings, held: list[Loaded]) -> Loaded | Refusal:
        """Load; where memory is short, without the previous release."""
        outcome = await self._attempt(pair, held)
        if isinstance(outcome, Refusal) and issubclass(outcome.error, MemoryShortError) and self.previous is not None:
            logger.warning("release %s is dropped to make room for %s", self.previous.name, pair.name)
            held.remove(self._held["previous"])
            self._hold({"previous": None})
            await asyncio.to_thread(return_freed_memory)
            outcome = await self._attempt(pair, held)
        return outcome

    async def _attempt(self, pair: ReleaseSettings, held: Sequence[Loaded], nice: int = NICE) -> Loaded | Refusal:
        return await attempt_in_background(lambda: self._load(pair, held, self._go_on), nice=nice)

    def _go_on(self) -> None:
        if self._stopping:
            raise ReleaseError("the service is stopping")

    def _make_stable(self, loaded: Loaded) -> None:
        """Serve it, and keep the release before for a while; a canary or shadow of its name has served its purpose."""
        self._rolled_back = False
        self._previous_until = self._clock() + self._keep_previous_s
        before = self._held["stable"] if self._keep_previous_s else None
        namesakes: list[Role] = [
            role
            for role in ("canary", "shadow")
            if role in self._held and self._held[role].release.name == loaded.release.name
        ]
        self._wanted = self._wanted.taking(namesakes, Wanted(loaded.settings, None, None))
        self._hold({"stable": loaded, "previous": before, **dict.fromkeys(namesakes)})

    def _hold(self, changes: dict[str, Loaded | None]) -> None:
        """Change which releases have which roles; the one place that does."""
        before = set(self._held.values())
        self._held = {role: loaded for role, loaded in (self._held | changes).items() if loaded is not None}
        releases = {role: loaded.release for role, loaded in self._held.items()}
        self.stable, self.canary = releases.get("stable"), releases.get("canary")
        self.shadow, self.previous = releases.get("shadow"), releases.get("previous")
        self._regulate()
        names = [release.name for release in releases.values()]
        releases.pop("previous", None)
        self._metrics.releases.serving(releases, names)
        for gone in before.difference(self._held.values()):
            self._retire(gone.release)

    def _regulate(self) -> None:
        """Split the traffic; a canary's share and bounds change without loading anything."""
        if self.stable is None:
            return
        ad_index = self.stable.ad_index
        self._metrics.ads_served(lambda: ad_index.stats().ad_count)
        canary = self._held.get("canary")
        if canary is not None and canary.settings == self._wanted.pair("canary"):
            self._canary_bounds = self._wanted.canary
        self.traffic.split(self.stable, self.canary, self._canary_bounds)
        self.shadow_share = self._wanted.shadow.share if self.shadow and self._wanted.shadow else 0.0
        for callback in self.on_change:
            callback()

    def _retire(self, release: Release) -> None:
        weakref.finalize(release, self._note_freed).atexit = False
        for callback in self.on_retired:
            callback(release)

    def _note_freed(self) -> None:
        self._freed = True

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self.tick()
            if self._freed:
                self._freed = False
                await asyncio.to_thread(return_freed_memory)

    def _record(self, swap: Swap) -> Swap:
        self._last_swap = swap
        self._metrics.releases.swapped(swap.result, swap.seconds)
        level = logging.ERROR if swap.result == "rejected" else logging.INFO
        what = "settings" if swap.release is None else f"release {swap.release} as {swap.role}"
        logger.log(level, "%s: %s%s", what, swap.result, f": {swap.reason}" if swap.reason else "")
        return swap

    def _describe(self, role: str, loaded: Loaded) -> dict[str, object]:
        costs = loaded.release.encoder.shape_costs
        described: dict[str, object] = {
            "name": loaded.release.name,
            "model_version": loaded.release.model_version,
            "index_version": loaded.release.index_version,
            "encoder": str(loaded.settings.encoder),
            "index": str(loaded.settings.index),
            "record": loaded.settings.record and str(loaded.settings.record),
            "execution_providers": list(loaded.release.encoder.execution_providers),
            "shapes": costs and costs.describe(),
            "ads": loaded.release.ad_index.stats().ad_count,
            "loaded_at": loaded.loaded_at.isoformat(timespec="seconds"),
            "golden": asdict(loaded.figures),
        }
        if role == "canary":
            aborted = self.traffic.aborted
            described |= {"share": self.traffic.share, "aborted": aborted and aborted.sentence}
        if role == "shadow":
            described["share"] = self.shadow_share
        return described
