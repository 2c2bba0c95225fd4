"""A whole service lets go of a release that it answered from: no cache, watcher or worker keeps it in memory."""

import asyncio
import gc
import json
import weakref
from time import perf_counter

from service.errors import RequestError
from service.origin import Origin
from service.service import Service
from tests.service.small_artifacts import SmallArtifacts, pair, settings_of

QUERIES = ("cordless drill", "sofa", "cordless drill", "led light bulbs 60 watt")


async def ask(service: Service, **fields: object) -> bytes | RequestError:
    done: asyncio.Future[bytes | RequestError] = asyncio.get_running_loop().create_future()
    body = json.dumps({"top_k": 10, "timeout_ms": 10_000, **fields}).encode()
    service.handle(body, Origin(caller="one", arrived=perf_counter()), done.set_result)
    return await done


def test_a_release_that_answered_and_refused_is_freed_when_it_is_dropped(small: SmallArtifacts):
    wanted = [
        settings_of(
            pair(name, encoder, index),
            swap={"keep_previous_ms": 0},
            cache={"result_ttl_ms": 1_000},
            monitor={"recall_sample_share": 1.0},
        )
        for name, encoder, index in (
            ("first", small.encoder, small.index),
            ("second", small.other_encoder, small.other_index),
        )
    ]

    async def scenario() -> None:
        service = Service(wanted[0])
        await service.start()
        try:
            for query in QUERIES:
                answer = await ask(service, query=query)
                assert isinstance(answer, bytes)
                assert json.loads(answer)["release"] == "first"
            assert isinstance(await ask(service, query="", top_k=-1), RequestError)
            assert isinstance(await ask(service, query="late", timeout_ms=1), bytes | RequestError)
            assert service.release is not None
            gone = weakref.ref(service.release)
            gc.collect()
            gc.disable()
            try:
                assert await service.releases.apply(wanted[1])
                assert isinstance(await ask(service, query="sofa"), bytes)  # a worker forgets a batch with the next
                async with asyncio.timeout(30):
                    while gone() is not None:  # what was sampled of it may still be in the low lane
                        await asyncio.sleep(0.005)
            finally:
                gc.enable()
        finally:
            await service.stop()

    asyncio.run(scenario())
