"""Lets requests gather for a moment while most of them are refused.

At ten times the capacity thousands of refusals a second would each wake the event loop, take the core from a batch and
drop what the batch has in the processor's cache. Read together, they cost half (docs/experiments.md, "overload").
"""

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

PAUSE_S = 0.002
"""What an answer may be late by for this; small beside the wait in a queue that refuses."""


class Pacer:
    """Stops the event loop for a moment, at most once a turn, after refusals. Used on the event loop alone."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take what sleeps: it must stop the loop, and leave its core and the interpreter to the workers."""
        self._sleep = sleep
        self._pausing = False

    def refused(self, loop: AbstractEventLoop) -> None:
        """A request was refused; once what came with it is answered, wait for more to come."""
        if not self._pausing:
            self._pausing = True
            loop.call_soon(self._pause)

    def _pause(self) -> None:
        self._sleep(PAUSE_S)
        self._pausing = False
