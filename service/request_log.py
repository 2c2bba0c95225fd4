"""The sampled log of requests and their answers, for training and for questions asked later; off by default.

event loop                      one thread
offer ──> bounded queue ──────> NDJSON, one file an hour; files past their retention are deleted
   └─ full: dropped and counted, never waited for
"""

import hashlib
import logging
import queue
import secrets
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import orjson

from index.ad_index import SearchHits
from service.admission import StepName
from service.answer import StageTimes
from service.errors import StartupError
from service.hourly_files import Clock, HourlyFiles
from service.metrics import STAGES, Metrics
from service.release import Release
from service.schemas import RetrieveRequest
from service.settings import RequestLogSettings

QUEUE_SIZE = 1_000
WRITE_SIZE = 100
"""Most records in one write."""
IDLE_S = 60.0
"""How long nothing may come before the files are looked through for ones to delete."""
DAY_S = 86_400
SCORE_DECIMALS = 6
"""As many as the answer has."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One answered request, as it waits to be written."""

    time: float
    request_id: str
    query: str
    top_k: int
    filters: dict[str, object]
    """Those that were given."""
    release: str
    model_version: str
    index_version: str
    hits: SearchHits
    reason: str | None
    steps: Sequence[StepName]
    cached: bool
    times: StageTimes


def open_request_log(
    settings: RequestLogSettings, key: str | None, metrics: Metrics, clock: Clock = time.time
) -> "RequestLog | None":
    """The log that the settings ask for, with its thread running; None where it is off.

    Args:
        settings: where, how much and how long.
        key: of the hashes of queries, which compare across processes that have it; None makes one up.
        metrics: counts what is written and lost.
        clock: seconds since 1970.

    Raises:
        StartupError: the directory cannot be written to.
    """
    if settings.sample_share == 0 or settings.path is None:
        return None
    files = HourlyFiles(settings.path, settings.retention_days * DAY_S, clock)
    try:
        files.write(b"")
        files.expire()
    except OSError as error:
        raise StartupError(f"request_log.path {settings.path}: cannot be written to ({error.strerror})") from error
    log = RequestLog(settings, (key or secrets.token_hex()).encode(), files, metrics, clock)
    log.start()
    return log


class RequestLog:
    """Takes answered requests on the event loop and writes a share of them on a thread of its own."""

    def __init__(
        self,
        settings: RequestLogSettings,
        key: bytes,
        files: HourlyFiles,
        metrics: Metrics,
        clock: Clock = time.time,
    ) -> None:
        self._share = settings.sample_share
        self._threshold = int(settings.sample_share * 2**64)
        self._render = _Renderer(settings.query_text, key, settings.sample_share)
        self._files = files
        self._metrics = metrics
        self._clock = clock
        self._queue: queue.Queue[LoggedRequest | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._write_all, name="request-log", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def offer(
        self,
        request: RetrieveRequest,
        request_id: str,
        release: Release,
        hits: SearchHits,
        *,
        reason: str | None,
        steps: Sequence[StepName],
        cached: bool,
        times: StageTimes,
    ) -> None:
        """Log an answered request if it is in the sample and its caller allows it; never waits.

        The sample is by a hash of the request id: a request that is asked again is in it again, and it is independent
        of what other hashes of the same id decide.

        Args:
            request: as it was validated.
            request_id: the caller's, or the one that was made up.
            release: what answered.
            hits: the ads.
            reason: the answer's `coverage.reason`.
            steps: its `coverage.degraded`.
            cached: whether it came from a cache.
            times: seconds in each stage.
        """
        if request.no_log or not self._in_sample(request_id):
            return
        record = LoggedRequest(
            time=self._clock(),
            request_id=request_id,
            query=request.query,
            top_k=request.top_k,
            filters=request.filters.model_dump(exclude_unset=True) if request.filters else {},
            release=release.name,
            model_version=release.model_version,
            index_version=release.index_version,
            hits=hits,
            reason=reason,
            steps=steps,
            cached=cached,
            times=times,
        )
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._metrics.request_logged("dropped", 1)

    def close(self, timeout_s: float) -> None:
        """Write what is queued and end the thread, or leave it behind after `timeout_s`."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            logger.warning("the request log could not be written to its end")
            return
        self._thread.join(timeout_s)

    def _in_sample(self, request_id: str) -> bool:
        digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"request log").digest()
        return int.from_bytes(digest) < self._threshold

    def _write_all(self) -> None:
        going_on = True
        while going_on:
            records, going_on = self._next()
            written = 0
            try:
                if records:
                    written = self._files.write(b"".join(map(self._render, records)))
                self._files.expire()
            except Exception as error:  # whatever is wrong with the disk or a record, serving goes on
                self._failed(error)
            else:
                self._recovered()
            self._metrics.request_logged("written", written)
            self._metrics.request_logged("failed", len(records) - written)
        self._files.close()

    def _next(self) -> tuple[list[LoggedRequest], bool]:
        """What has come, and whether more may; waits a while for the first."""
        records: list[LoggedRequest] = []
        try:
            record = self._queue.get(timeout=IDLE_S)
            while record is not None:
                records.append(record)
                if len(records) == WRITE_SIZE:
                    return records, True
                record = self._queue.get_nowait()
        except queue.Empty:
            return records, True
        return records, False

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            logger.error("the request log cannot be written; requests are answered without it", exc_info=error)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("the request log can be written again")


class _Renderer:
    """The line of one record."""

    def __init__(self, query_text: Literal["hash", "text", "none"], key: bytes, share: float) -> None:
        self._query_text = query_text
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        self._share = share

    def __call__(self, record: LoggedRequest) -> bytes:
        when = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
        return orjson.dumps(
            {
                "time": when.replace("+00:00", "Z"),
                "request_id": record.request_id,
                "release": record.release,
                "model_version": record.model_version,
                "index_version": record.index_version,
                **self._query(record.query),
                "top_k": record.top_k,
                "filters": record.filters,
                "ad_ids": record.hits.ad_ids,
                "scores": [round(score, SCORE_DECIMALS) for score in record.hits.scores.tolist()],
                "coverage_reason": record.reason,
                "degraded": record.steps,
                "cached": record.cached,
                "timings_ms": {stage: round(getattr(record.times, stage) * 1e3, 3) for stage in STAGES},
                "propensity": self._share,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    def _query(self, query: str) -> dict[str, str]:
        if self._query_text == "none":
            return {}
        if self._query_text == "text":
            return {"query": query}
        same = " ".join(unicodedata.normalize("NFKC", query).casefold().split())
        return {"query_hash": hashlib.blake2b(same.encode(), digest_size=16, key=self._key).hexdigest()}
