"""The body of a `/retrieve` answer, as bytes: built without a response model, which would cost more than the search."""

import itertools
import secrets
from typing import Any

import numpy as np
import orjson

from index.ad_index import SearchHits
from index.ads import FieldName
from service.metrics import StageTimes
from service.release import Release
from service.schemas import RetrieveRequest

Columns = dict[FieldName, list[Any]]
"""Values of the fields that were asked for, in the order of the hits."""

_PROCESS = secrets.token_hex(4)
_NUMBERS = itertools.count()

SCORE_DECIMALS = 6
"""float32 cosines carry about seven digits; fewer bytes on the wire than their float64 forms."""


def to_json(request: RetrieveRequest, release: Release, hits: SearchHits, columns: Columns, times: StageTimes) -> bytes:
    """Serialise one answer; `service.schemas.RetrieveResponse` documents its form."""
    complete = len(hits.rows) == request.top_k
    return orjson.dumps(
        {
            "request_id": request.request_id or f"{_PROCESS}-{next(_NUMBERS):x}",
            "release": release.name,
            "model_version": release.model_version,
            "index_version": release.index_version,
            "ads": _ads(hits, columns),
            "coverage": {"complete": complete, "reason": None if complete else "index_smaller_than_top_k"},
            "cached": False,
            "timings_ms": {
                "tokenize": round(times.tokenize * 1e3, 3),
                "queue": round(times.queue * 1e3, 3),
                "encode": round(times.encode * 1e3, 3),
                "search": round(times.search * 1e3, 3),
                "total": round(times.total * 1e3, 3),
            },
        }
    )


def _ads(hits: SearchHits, columns: Columns) -> list[dict[str, object]]:
    scores = hits.scores.astype(np.float64).round(SCORE_DECIMALS).tolist()
    ads: list[dict[str, object]] = [
        {"ad_id": ad_id, "score": score} for ad_id, score in zip(hits.ad_ids, scores, strict=True)
    ]
    for name, values in columns.items():
        for ad, value in zip(ads, values, strict=True):
            ad[name] = value
    return ads
