"""Gives each request its release, and takes a canary's share away where it does worse than stable."""

import hashlib
import logging

from service.canary import Breach, CanaryGuard
from service.errors import InvalidRequestError, NotReadyError
from service.metrics import Metrics
from service.release import Release
from service.settings import CanarySettings

RELEASE_HEADER = "X-HLM-Release"
"""Asks for a release: `stable`, `canary`, or the name of one of them."""

logger = logging.getLogger(__name__)


class Traffic:
    """Splits requests between stable and canary. Used on the event loop alone."""

    def __init__(self, metrics: Metrics) -> None:
        self.aborted: Breach | None = None
        """Why the canary has no share any more."""
        self._metrics = metrics
        self._stable: Release | None = None
        self._canary: Release | None = None
        self._bounds: CanarySettings | None = None
        self._guard: CanaryGuard | None = None
        self._share = 0.0

    def split(self, stable: Release, canary: Release | None, bounds: CanarySettings | None) -> None:
        """Split from now on like this; an aborted canary stays so until its settings change."""
        same = canary is self._canary and bounds == self._bounds
        self.aborted = self.aborted if same else None
        if not same or stable is not self._stable:  # otherwise what was seen of both still counts
            self._guard = CanaryGuard(bounds) if canary and bounds else None
        self._stable, self._canary, self._bounds = stable, canary, bounds
        self._share = bounds.share if canary and bounds and not self.aborted else 0.0

    @property
    def share(self) -> float:
        """Of the requests, what the canary gets now."""
        return self._share

    def choose(self, request_id: str, asked: str | None = None) -> Release:
        """The release for a request. The same id gets the same one in every process, as long as the share stays.

        Args:
            request_id: decides, where nothing else does.
            asked: value of the header `X-HLM-Release`.

        Raises:
            NotReadyError: nothing is loaded yet.
            InvalidRequestError: what is asked for is not served.
        """
        stable = self._stable
        if stable is None:
            raise NotReadyError("the release is still being loaded")
        if asked is not None:
            return self._asked(asked, stable)
        if self._share and self._canary and position(request_id, self._canary.name) < self._share:
            return self._canary
        return stable

    def answered(self, release: Release, seconds: float) -> None:
        """A request got its ads from a release, `seconds` after it arrived."""
        self._metrics.releases.answered(release, seconds)
        if (guard := self._guard_for(release)) and (breach := guard.answered(seconds, canary=release is self._canary)):
            self._abort(breach)

    def failed(self, release: Release, outcome: str) -> None:
        """A request that was given to a release got none; `outcome` is one of `service.metrics.OUTCOMES`."""
        self._metrics.releases.failed(release, outcome)
        if (guard := self._guard_for(release)) and (breach := guard.failed(outcome, canary=release is self._canary)):
            self._abort(breach)

    def _guard_for(self, release: Release) -> CanaryGuard | None:
        """None also for what a release answered that has lost its role meanwhile."""
        return self._guard if release is self._canary or release is self._stable else None

    def _asked(self, asked: str, stable: Release) -> Release:
        canary = self._canary
        if asked in {"stable", stable.name}:
            return stable
        if canary is not None and asked in {"canary", canary.name}:
            return canary
        served = f"stable ({stable.name})" + (f" and canary ({canary.name})" if canary else "")
        message = f"{asked[:64]!r} is not served; served are {served}"
        raise InvalidRequestError(f"{RELEASE_HEADER}: {message}", [{"field": RELEASE_HEADER, "message": message}])

    def _abort(self, breach: Breach) -> None:
        if self._share == 0 or self._canary is None:  # asked for by header, or what was still in flight
            return
        self._share = 0.0
        self.aborted = breach
        self._metrics.releases.aborted(breach.reason)
        logger.error("canary %s gets no more requests: %s", self._canary.name, breach.sentence)


def position(request_id: str, name: str) -> float:
    """Where a request id falls between 0 and 1 for a release of this name: at random over ids, the same for one id.

    Another canary takes another part of the ids, so that it is not always the same callers who try what is new.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=7, key=name.encode()[:64]).digest()
    return int.from_bytes(digest) / (1 << 56)
