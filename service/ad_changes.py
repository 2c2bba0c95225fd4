"""Changes of the ads that are served: read and embedded in the low lane, recorded and made by the writer.

lines ──low lane──> ads with embeddings ──writer──> record, index in memory ──> outcome
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from index.changes import AdState, Change, State, Upsert, parse_upsert
from index.embed import ad_text
from index.errors import RecordError, RecordFullError
from index.feed import FeedAd
from index.record_reader import RecordReader
from index.vectors import normalize
from index.writer import AdWriter, Outcome
from service.ad_metrics import KINDS, AdMetrics
from service.errors import NotReadyError, ReadOnlyIndexError, RecordRefusedError, StorageFullError
from service.low_lane import LowLane, breathe
from service.release import Release
from service.validation import Body, parse_body

SHORT_BODY_BYTES = 4_096
ADS_A_JOB = 8
"""Embedded together: about 20 ms, after which another job of the low lane has its turn."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
Line = tuple[int, bytes]
"""Number, from 1, and content."""
Failure = tuple[int, str]
"""Number of a line, and what is wrong with it."""
OnMade = Callable[[Outcome | Exception], None]
"""Gets what came of changes, or why they were not made; once, on the event loop."""


class Result(NamedTuple):
    """What became of some lines."""

    applied: int
    """How many hold now."""
    failed: list[Failure]
    """The others."""
    sequence: int
    """All of it is recorded up to this sequence number."""


@dataclass(slots=True)
class _Parsed:
    line: int
    ad: FeedAd
    embedding: NDArray[np.float32] | None
    embedded_by: str | None = None

    @property
    def text(self) -> str:
        return _text_of(self.ad)


class AdChanges:
    """Changes the ads of the stable release, and with them those of other releases that have a record of their own.

    A release of another embedding space gets patches and deletions alone. Used on the event loop.
    """

    def __init__(self, releases: Callable[[], Sequence[Release]], lane: LowLane, metrics: AdMetrics) -> None:
        """Take what it works with; `releases` gives those that are loaded, the stable one first."""
        self._releases = releases
        self._lane = lane
        self.metrics = metrics

    @property
    def sequence(self) -> int:
        """Of the last change.

        Raises:
            NotReadyError: no release is loaded yet.
            ReadOnlyIndexError: its index has no record.
        """
        return _writer_of(self._stable()).sequence

    async def parse(self, model: type[Body], body: bytes) -> Body:
        """Check the body of a patch; a long one, with thousands of negative keywords, where it holds up no request.

        Raises:
            InvalidJsonError: it is not a JSON document.
            InvalidRequestError: a field is wrong.
        """
        parse = partial(parse_body, model, body)
        return parse() if len(body) <= SHORT_BODY_BYTES else await self._lane.run(parse)

    async def put(self, lines: Sequence[Line]) -> Result:
        """Write ads anew, one a line; a line that is wrong harms no other.

        Raises:
            NotReadyError: no release is loaded yet.
            ReadOnlyIndexError: its index has no record.
            RecordRefusedError: none of it could be recorded.
        """
        release = self._stable()
        writer = _writer_of(release)
        failed: list[Failure] = []
        # One job for all of it where there are few ads: each costs the event loop and the lane a turn.
        parsed, left = await self._lane.run(partial(_prepare, release, lines, failed))
        for start in range(0, len(left), ADS_A_JOB):
            await self._lane.run(partial(_encode, release, left[start : start + ADS_A_JOB]))
        self.metrics.invalid("upsert", len(failed))
        upserts = [Upsert(one.ad, one.embedding, one.embedded_by) for one in parsed if one.embedding is not None]
        outcome = await self._make(release, upserts) if upserts else Outcome(0, (), writer.sequence)
        return Result(outcome.applied, sorted(failed), outcome.sequence)

    async def make(self, change: Change) -> Outcome:
        """Make one change.

        Raises:
            NotReadyError: no release is loaded yet.
            ReadOnlyIndexError: its index has no record.
            RecordRefusedError: it could not be recorded.
        """
        return await self._make(self._stable(), [change])

    def submit(self, change: Change, on_done: OnMade) -> None:
        """As `make`, for who does not wait: `on_done` gets what came of it, or what `make` would raise, later."""
        self._submit(self._stable(), [change], on_done)

    async def find(self, ad_id: str) -> AdState | None:
        """What the record says of an ad; raises as `sequence`."""
        found = await asyncio.to_thread(_read, _writer_of(self._stable()), lambda reader: reader.find(ad_id))
        return None if found is None else found.state

    async def changes(self, after: int, limit: int) -> tuple[list[State], bool]:
        """The first changes after a sequence number, without embeddings, and whether they are all there are.

        They are not where deletions are forgotten, or where the number is not the record's: it was restored since.

        Raises as `sequence`.
        """

        def read(reader: RecordReader) -> tuple[list[State], bool]:
            page = reader.page(after, limit)
            return page, reader.forgotten <= after <= reader.sequence

        return await asyncio.to_thread(_read, _writer_of(self._stable()), read)

    def _stable(self) -> Release:
        releases = self._releases()
        if not releases:
            raise NotReadyError("the release is still being loaded")
        return releases[0]

    async def _make(self, release: Release, changes: Sequence[Change]) -> Outcome:
        made: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._submit(release, changes, partial(_settle, made))
        return await made

    def _submit(self, release: Release, changes: Sequence[Change], on_done: OnMade) -> None:
        futures = [_writer_of(release).submit(changes)]
        futures += [writer.submit(theirs) for writer, theirs in self._elsewhere(release, changes)]
        loop, waiting = asyncio.get_running_loop(), set(futures)

        def ended(future: "Future[Outcome]") -> None:
            waiting.discard(future)
            if not waiting:
                on_done(self._outcome_of(futures, changes))

        def tell_loop(future: "Future[Outcome]") -> None:  # on a writer's thread
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waits
                loop.call_soon_threadsafe(ended, future)

        for future in futures:
            future.add_done_callback(tell_loop)

    def _outcome_of(self, futures: Sequence["Future[Outcome]"], changes: Sequence[Change]) -> Outcome | Exception:
        """What came of changes in the first of some records, or what went wrong in any."""
        error = next((found for future in futures if (found := future.exception()) is not None), None)
        if error is None:
            return futures[0].result()
        if not isinstance(error, RecordError):
            return cast("Exception", error)  # no writer raises anything else
        logger.error("changes of ads could not be recorded: %s", error)
        for kind, count in Counter(KINDS[type(change).__name__] for change in changes).items():
            self.metrics.refused(kind, count)
        refusal = StorageFullError if isinstance(error, RecordFullError) else RecordRefusedError
        return refusal(str(error))

    def _elsewhere(self, release: Release, changes: Sequence[Change]) -> Iterator[tuple[AdWriter, list[Change]]]:
        """The writers of other records, and what each is to make."""
        space, seen = release.ad_index.manifest.space, {release.writer}
        for other in self._releases():
            if other.writer is not None and other.writer not in seen:
                seen.add(other.writer)
                same_space = other.ad_index.manifest.space == space
                theirs = [change for change in changes if same_space or not isinstance(change, Upsert)]
                if theirs:
                    yield other.writer, theirs


def _writer_of(release: Release) -> AdWriter:
    if release.writer is None:
        raise ReadOnlyIndexError(
            f"release {release.name} has no record, so its ads cannot be changed; set `release.record` to a file"
        )
    return release.writer


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except RecordError as error:
        raise RecordRefusedError(str(error)) from error


def _read(writer: AdWriter, read: Callable[[RecordReader], T]) -> T:
    with _readable(), writer.readers.reader() as reader:
        return read(reader)


def _settle(made: "asyncio.Future[Outcome]", outcome: Outcome | Exception) -> None:
    if made.done():  # whoever waited was cancelled
        return
    if isinstance(outcome, Exception):
        made.set_exception(outcome)
    else:
        made.set_result(outcome)


def _prepare(release: Release, lines: Sequence[Line], failed: list[Failure]) -> tuple[list[_Parsed], list[_Parsed]]:
    """Read lines and see to their embeddings, as far as a job may take: that of some is left to be made.

    Returns:
        The ads, less those that are in `failed` now; and which of them still lack an embedding, by length of text.
    """
    parsed = _parse(lines, release.ad_index.manifest.space.dim, failed)
    lacking = [one for one in parsed if one.embedding is None]
    maker = release.ad_index.manifest.model_version
    if lacking and maker != release.model_version:
        made_by = f"the ads of this index were embedded by {maker}" if maker else "this index was given embeddings"
        failed += [(one.line, f"embedding: missing, and {made_by}, not by this release's encoder") for one in lacking]
        return parsed, []
    if lacking:
        with _readable(), _writer_of(release).readers.reader() as reader:
            _reuse(lacking, release.model_version, reader)
    left = sorted((one for one in lacking if one.embedding is None), key=lambda one: len(one.text))
    if 0 < len(left) <= ADS_A_JOB:
        _encode(release, left)
        left = []
    return parsed, left


def _parse(lines: Sequence[Line], dim: int, failed: list[Failure]) -> list[_Parsed]:
    parsed = []
    for number, line in lines:
        try:
            parsed.append(_Parsed(number, *parse_upsert(line, dim)))
        except ValueError as error:
            failed.append((number, str(error)))
        breathe()
    return parsed


def _reuse(parsed: Sequence[_Parsed], model_version: str, reader: RecordReader) -> None:
    """Take over the embeddings of ads whose text is as it was, so that an ad that is written again stays the same."""
    for one in parsed:
        breathe()
        before = reader.find(one.ad.ad_id)
        if before is None or before.state.ad is None or before.embedded_by != model_version:
            continue
        if _text_of(before.state.ad) == one.text:
            one.embedding, one.embedded_by = before.state.embedding, model_version


def _text_of(ad: FeedAd) -> str:
    return ad_text(ad.title, ad.description)


def _encode(release: Release, parsed: Sequence[_Parsed]) -> None:
    token_ids = release.encoder.tokenize_ads([one.text for one in parsed])
    breathe()
    embeddings = release.encoder.encode(token_ids)
    normalize(embeddings, release.model_version)
    for one, embedding in zip(parsed, embeddings, strict=True):
        one.embedding, one.embedded_by = embedding, release.model_version
