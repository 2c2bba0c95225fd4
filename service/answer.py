"""The body of a `/retrieve` answer, as bytes: built without a response model, which would cost more than the search."""

import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.ads import FieldName
from service.admission import StepName

if TYPE_CHECKING:  # who only writes answers needs neither
    from index.ad_index import SearchHits
    from service.release import Release

SCORE_DECIMALS = 6
"""float32 cosines carry about seven digits."""

_PROCESS = secrets.token_hex(4)
_NUMBERS = itertools.count()


def new_request_id() -> str:
    """A name for a request that brought none."""
    return f"{_PROCESS}-{next(_NUMBERS):x}"


def is_complete(hits: "SearchHits", steps: Sequence[StepName]) -> bool:
    """Whether the answer is all that was asked for."""
    return hits.short is None and "smaller_ef_search" not in steps


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds that a request spent in each stage: histogram, answer and load test use the same figures."""

    tokenize: float
    queue: float
    encode: float
    search: float
    total: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a `/retrieve` answer says; `to_json` writes it, in this process or in one that is nearer to the client."""

    request_id: str
    release: str
    model_version: str
    index_version: str
    json_ids: list[bytes]
    """Of the ads in falling score, as JSON strings."""
    scores: NDArray[np.float32]
    """Shape (ads,)."""
    columns: dict[FieldName, list[bytes]]
    """Values of the fields that were asked for, as JSON, in the order of the ads."""
    coverage: dict[str, object]
    cached: bool
    times: StageTimes


Write = Callable[[Answer], bytes]


def answer_of(
    release: "Release",
    hits: "SearchHits",
    columns: Mapping[FieldName, Sequence[Any]],
    times: StageTimes,
    *,
    request_id: str,
    cached: bool = False,
    steps: Sequence[StepName] = (),
) -> Answer:
    """Put together what is known of a request that got its ads."""
    return Answer(
        request_id,
        release.name,
        release.model_version,
        release.index_version,
        hits.json_ids,
        hits.scores,
        {name: list(map(orjson.dumps, column)) for name, column in columns.items()},
        _coverage(hits, steps),
        cached,
        times,
    )


def to_json(answer: Answer) -> bytes:
    """Serialise one answer; `service.schemas.RetrieveResponse` documents its form."""
    times = answer.times
    return _DOCUMENT % (
        orjson.dumps(answer.request_id),
        _versions(answer.release, answer.model_version, answer.index_version),
        _ads(answer),
        orjson.dumps(answer.coverage),
        b"true" if answer.cached else b"false",
        times.tokenize * 1e3,
        times.queue * 1e3,
        times.encode * 1e3,
        times.search * 1e3,
        times.total * 1e3,
    )


_DOCUMENT = (
    b'{"request_id":%b,%b,"ads":%b,"coverage":%b,"cached":%b,'
    b'"timings_ms":{"tokenize":%.3f,"queue":%.3f,"encode":%.3f,"search":%.3f,"total":%.3f}}'
)


@lru_cache(maxsize=8)
def _versions(release: str, model_version: str, index_version: str) -> bytes:
    """By names: with the release itself as its key, this cache would keep it in memory."""
    names = {"release": release, "model_version": model_version, "index_version": index_version}
    return orjson.dumps(names)[1:-1]


def coverage_reason(hits: "SearchHits", steps: Sequence[StepName]) -> str | None:
    """Why an answer is not all that was asked for; None where it is."""
    return hits.short or ("degraded" if steps else None)


def _coverage(hits: "SearchHits", steps: Sequence[StepName]) -> dict[str, object]:
    return {
        "complete": is_complete(hits, steps),
        "reason": coverage_reason(hits, steps),
        "degraded": steps,
    }


def _ads(answer: Answer) -> bytes:
    """The list of ads, written by one format string: no objects are made but those that hold ids and scores."""
    values: list[Sequence[object]] = [answer.json_ids, answer.scores.tolist(), *answer.columns.values()]
    interleaved = itertools.chain.from_iterable(zip(*values, strict=True))
    return _format(len(answer.json_ids), tuple(answer.columns)) % tuple(interleaved)


@lru_cache(maxsize=64)
def _format(count: int, names: tuple[FieldName, ...]) -> bytes:
    """For `count` ads with these fields."""
    fields = b"".join(b',"%b":%%b' % name.encode() for name in names)
    ad = b'{"ad_id":%%b,"score":%%.%df%b}' % (SCORE_DECIMALS, fields)
    return b"[%b]" % b",".join([ad] * count)
