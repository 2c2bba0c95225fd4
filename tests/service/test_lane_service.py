"""The whole service with its encoder in lanes, as on a GPU, on the CPU by configuration."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from service.app import create_app
from service.service import Service
from service.settings import Settings
from tests.service.small_artifacts import SmallArtifacts, pair, settings_of

QUERIES = [f"{word} {number}" for word in ("drill", "red running shoes", "lamp for a desk") for number in range(10)]
PATIENT = {"limits": {"default_timeout_ms": 10_000}, "cache": {"embedding_bytes": 0}}


async def answers(settings: Settings, queries: Sequence[str]) -> tuple[list[list[str]], Any]:
    """The ads of each query, all asked for at once, and the shapes that `/info` names."""
    service = Service(settings)
    await service.start()
    try:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://hlm") as client:
            asked = [client.post("/retrieve", json={"query": query, "top_k": 10}) for query in queries]
            bodies = [response.raise_for_status().json() for response in await asyncio.gather(*asked)]
            info = (await client.get("/info")).json()
    finally:
        await service.stop()
    return [[ad["ad_id"] for ad in body["ads"]] for body in bodies], info["releases"]["stable"]["shapes"]


def test_answers_are_those_of_the_plain_session(small: SmallArtifacts):
    stable = pair("r", small.encoder, small.index)
    in_lanes = settings_of(stable, **PATIENT, inference={"batches_in_flight": 2})
    expected, no_shapes = asyncio.run(answers(settings_of(stable, **PATIENT), QUERIES))
    found, shapes = asyncio.run(answers(in_lanes, QUERIES))
    assert found == expected
    assert no_shapes is None
    assert {(shape["batch"], shape["length"]) for shape in shapes} >= {(1, 8), (8, 64)}
