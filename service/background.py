"""Runs a long job beside requests: on a thread of its own, at low priority, and with no trace of it left behind."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from artifacts.errors import HlmError
from cores import NICE, give_way

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job that failed, and why; not the exception, whose traceback would keep all that was loaded in memory."""

    reason: str
    error: type[Exception]


async def attempt_in_background(job: Callable[[], T], *, nice: int = NICE) -> T | Refusal:
    """Run a blocking job on a thread of its own. The process ends after it: killed inside onnxruntime, it would abort.

    Args:
        job: what it raises becomes a `Refusal`.
        nice: added to the thread's own niceness.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T | Refusal] = loop.create_future()
    # The thread keeps what it takes out of neither list: being nice, it may end long after its outcome is known, and
    # what was loaded, or was there before, must be free to go by then.
    jobs, outcomes = [job], list[T | Refusal]()

    def run() -> None:
        give_way(nice)
        outcomes.append(_attempt(jobs.pop()))
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(_deliver, future, outcomes)

    threading.Thread(target=run, name="background").start()
    return await future


def _attempt(job: Callable[[], T]) -> T | Refusal:
    try:
        return job()
    except HlmError as error:
        return Refusal(str(error), type(error))
    except Exception as error:  # serving goes on, whatever loading does
        logger.exception("a background job failed")
        return Refusal(f"{type(error).__name__}: {error}", type(error))


def _deliver(future: "asyncio.Future[T | Refusal]", outcomes: list[T | Refusal]) -> None:
    outcome = outcomes.pop()
    if not future.done():
        future.set_result(outcome)
