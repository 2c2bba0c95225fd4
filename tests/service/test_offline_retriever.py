"""Many queries in one request, in process: a real lane and index, and an encoder that remembers its batches."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from index.load import FrozenIndex
from service.app import create_app
from service.errors import Overloaded
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane
from service.metrics import OUTCOMES
from service.offline_retriever import QUERIES_A_JOB, OfflineRetriever
from service.release import Release
from service.schemas import OfflineRequest
from service.service import Service
from service.settings import ReleaseSettings, Settings
from tests.index.support import WordEmbedder
from tests.service.releases_beside import build_small_index


class Recorder(WordEmbedder):
    """Remembers the lengths of each batch, and fails on any that has the word "unlucky"."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def encode(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self.tokenize("unlucky")[0] in (token for ids in token_ids for token in ids):
            raise ValueError("unlucky")
        self.batches.append([len(ids) for ids in token_ids])
        return super().encode(token_ids)


@pytest.fixture(scope="module")
def ad_index(tmp_path_factory) -> FrozenIndex:
    return build_small_index(tmp_path_factory.mktemp("offline"), 300)


def answer(ad_index: FrozenIndex, encoder: WordEmbedder, queries: list[Any]) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many came at a time at first."""

    async def run() -> list[bytes]:
        metrics = LaneMetrics(CollectorRegistry(), OUTCOMES)
        lane = LowLane(metrics)
        lane.start()
        offline = OfflineRetriever(lane, metrics, max_requests=1)
        release = Release("a", cast("Any", encoder), ad_index, "words-1", "ads-1")
        wanted = OfflineRequest(queries=queries, top_k=3)
        parts = [part async for part in offline.lines(release, wanted, offline.take_place(), perf_counter())]
        await lane.stop()
        return parts

    parts = asyncio.run(run())
    assert all(part.endswith(b"\n") for part in parts)
    return [json.loads(line) for line in b"".join(parts).splitlines()], len(parts[0].splitlines())


def test_a_query_that_cannot_be_encoded_fails_alone(ad_index: FrozenIndex):
    unlucky = {"query": "unlucky shoe", "request_id": "r-5"}
    queries = ["red shoe"] * 5 + [unlucky] + ["blue drill"] * 5
    lines, _ = answer(ad_index, Recorder(), queries)
    assert [line["position"] for line in lines] == list(range(11))
    assert [line.get("status") for line in lines] == [None] * 5 + [500] + [None] * 5
    assert (lines[5]["type"], lines[5]["request_id"]) == ("internal_error", "r-5")
    assert "ValueError" in lines[5]["detail"]
    assert all(len(line["ads"]) == 3 for line in lines if line["position"] != 5)


def test_queries_of_like_length_are_encoded_together_and_answered_in_their_own_order(ad_index: FrozenIndex):
    encoder = Recorder()
    queries = ["drill", "cordless drill with two batteries and a charger"] * 96  # three whole windows
    lines, _ = answer(ad_index, encoder, queries)
    assert {len(set(lengths)) for lengths in encoder.batches} == {1}
    assert max(map(len, encoder.batches)) == QUERIES_A_JOB
    assert [line["position"] for line in lines] == list(range(192))
    best = {query: lines[position]["ads"][0]["ad_id"] for position, query in enumerate(queries)}
    assert len(set(best.values())) == 2
    assert all(line["ads"][0]["ad_id"] == best[query] for query, line in zip(queries, lines, strict=True))


def test_lines_are_sent_as_soon_as_they_and_those_before_them_are_done(ad_index: FrozenIndex):
    _, first = answer(ad_index, Recorder(), ["drill"] * 40)
    assert first == QUERIES_A_JOB


def test_there_are_as_many_places_as_were_set():
    metrics = LaneMetrics(CollectorRegistry(), OUTCOMES)
    offline = OfflineRetriever(LowLane(metrics), metrics, max_requests=2)
    first, _ = offline.take_place(), offline.take_place()
    with pytest.raises(Overloaded) as refused:
        offline.take_place()
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    offline.give_back(first)
    offline.take_place()


def test_before_a_release_is_loaded_many_queries_are_refused_at_once():
    settings = Settings(release=ReleaseSettings(name="a", encoder=Path("e"), index=Path("i")))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(Service(settings)))
        async with httpx.AsyncClient(transport=transport, base_url="http://hlm") as client:
            return await client.post("/retrieve/batch", json={"queries": ["drill"]})

    answered = asyncio.run(ask())
    assert (answered.status_code, answered.json()["type"]) == (503, "not_ready")
