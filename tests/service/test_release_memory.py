"""A release that is not served any more is in nobody's hands: neither in a cache's nor in those of whoever started."""

import asyncio
import gc
import json
import weakref
from time import perf_counter

import pytest
import uvloop

from service.errors import Overloaded, RequestError
from service.origin import Origin
from service.release import Release
from service.service import Service
from tests.service.small_artifacts import SmallArtifacts, pair, settings_of

PATIENCE_S = 30.0
NOTHING_KEPT = {"swap": {"keep_previous_ms": 0}}


async def answer(service: Service) -> dict[str, object]:
    done: asyncio.Future[bytes | RequestError] = asyncio.get_running_loop().create_future()
    body = json.dumps({"query": "drill", "timeout_ms": 10_000}).encode()
    service.handle(body, Origin("test", perf_counter()), done.set_result)
    found = await done
    assert isinstance(found, bytes), found
    return json.loads(found)


async def until_freed(release: "weakref.ref[Release]") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while release() is not None:
            await asyncio.sleep(0.01)
            gc.collect()


def test_a_release_that_answered_is_freed_once_another_is_served(small: SmallArtifacts):
    async def swap() -> None:
        service = Service(settings_of(pair("one", small.encoder, small.index), **NOTHING_KEPT))
        starting = asyncio.create_task(service.start())  # kept, as the server keeps it
        await starting
        try:
            assert (await answer(service))["release"] == "one"
            assert service.release is not None
            first = weakref.ref(service.release)
            await service.releases.apply(settings_of(pair("two", small.encoder, small.other_index), **NOTHING_KEPT))
            assert (await answer(service))["release"] == "two"
            await until_freed(first)
        finally:
            await service.stop()

    uvloop.run(swap())


def test_a_release_that_refused_is_freed_once_another_is_served(small: SmallArtifacts, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise Overloaded("the answer would come too late", 1.0)

    async def swap() -> None:
        service = Service(settings_of(pair("one", small.encoder, small.index), **NOTHING_KEPT))
        await service.start()
        try:
            with monkeypatch.context() as patch:
                patch.setattr("service.admission.Admission.admit", refuse)
                refusals: list[bytes | RequestError] = []  # kept, as they are for the next requests
                body = json.dumps({"query": "drill"}).encode()
                service.handle(body, Origin("test", perf_counter()), refusals.append)
            assert isinstance(refusals[0], Overloaded)
            assert service.release is not None
            first = weakref.ref(service.release)
            await service.releases.apply(settings_of(pair("two", small.encoder, small.other_index), **NOTHING_KEPT))
            await until_freed(first)
        finally:
            await service.stop()

    uvloop.run(swap())
