"""Refusals in bunches, without a clock: the loop's turns are what counts."""

import asyncio

from service.pacing import PAUSE_S, Pacer


def test_pauses_once_after_all_refusals_of_one_turn_of_the_loop_and_again_after_those_of_another():
    slept: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        pacer = Pacer(slept.append)
        for _ in range(3):
            pacer.refused(loop)
        assert slept == []
        await asyncio.sleep(0)
        assert slept == [PAUSE_S]
        pacer.refused(loop)
        await asyncio.sleep(0)
        assert slept == [PAUSE_S] * 2
        await asyncio.sleep(0)
        assert slept == [PAUSE_S] * 2

    asyncio.run(scenario())
