"""Turns between the runs of a device and the capture of its CUDA graphs: whoever captures is alone.

onnxruntime captures in CUDA's global mode. Until such a capture ends, no other thread of the process may allocate on a
device, or copy to or from it as bound runs do: the call fails, and the capture with it. A release is captured while
another one serves and a third is being freed, so all of them take turns here. A capture takes milliseconds.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Many runs at once, or one capture; a capture that waits lets no further run begin. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Use a device beside others who do."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use a device while nobody else does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


TURNS = Turns()
"""Of the process, as CUDA's rule is."""
