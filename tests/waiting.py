"""Waiting for a state instead of for a time."""

import time
from collections.abc import Callable

PATIENCE_S = 30.0
POLL_S = 0.005


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return as soon as `condition` holds; fail if it never does."""
    gives_up = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < gives_up, "the state that was waited for never came"
        time.sleep(POLL_S)
