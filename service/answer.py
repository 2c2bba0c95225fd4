"""The body of a `/retrieve` answer, as bytes: built without a response model, which would cost more than the search."""

import itertools
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from index.ad_index import SearchHits
from index.ads import FieldName
from service.admission import StepName
from service.metrics import StageTimes
from service.release import Release
from service.schemas import RetrieveRequest

Columns = dict[FieldName, list[Any]]
"""Values of the fields that were asked for, in the order of the hits."""

SCORE_DECIMALS = 6
"""float32 cosines carry about seven digits."""

_PROCESS = secrets.token_hex(4)
_NUMBERS = itertools.count()


def new_request_id() -> str:
    """A name for a request that brought none."""
    return f"{_PROCESS}-{next(_NUMBERS):x}"


def is_complete(hits: SearchHits, steps: Sequence[StepName]) -> bool:
    """Whether the answer is all that was asked for."""
    return hits.short is None and "smaller_ef_search" not in steps


def to_json(
    request: RetrieveRequest,
    release: Release,
    hits: SearchHits,
    columns: Columns,
    times: StageTimes,
    *,
    request_id: str | None = None,
    cached: bool = False,
    steps: Sequence[StepName] = (),
) -> bytes:
    """Serialise one answer; `service.schemas.RetrieveResponse` documents its form."""
    return _DOCUMENT % (
        orjson.dumps(request_id or request.request_id or new_request_id()),
        _versions(release.name, release.model_version, release.index_version),
        _ads(hits, columns),
        orjson.dumps(_coverage(hits, steps)),
        b"true" if cached else b"false",
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


def coverage_reason(hits: SearchHits, steps: Sequence[StepName]) -> str | None:
    """Why an answer is not all that was asked for; None where it is."""
    return hits.short or ("degraded" if steps else None)


def _coverage(hits: SearchHits, steps: Sequence[StepName]) -> dict[str, object]:
    return {
        "complete": is_complete(hits, steps),
        "reason": coverage_reason(hits, steps),
        "degraded": steps,
    }


def _ads(hits: SearchHits, columns: Columns) -> bytes:
    """The list of ads, written by one format string: no objects are made but those that hold ids and scores."""
    values: list[Sequence[object]] = [hits.json_ids, hits.scores.tolist()]
    values += [list(map(orjson.dumps, column)) for column in columns.values()]
    interleaved = itertools.chain.from_iterable(zip(*values, strict=True))
    return _format(len(hits.rows), tuple(columns)) % tuple(interleaved)


@lru_cache(maxsize=64)
def _format(count: int, names: tuple[FieldName, ...]) -> bytes:
    """For `count` ads with these fields."""
    fields = b"".join(b',"%b":%%b' % name.encode() for name in names)
    ad = b'{"ad_id":%%b,"score":%%.%df%b}' % (SCORE_DECIMALS, fields)
    return b"[%b]" % b",".join([ad] * count)
