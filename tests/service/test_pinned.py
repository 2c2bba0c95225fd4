"""Page-locked memory, from a stand-in for the driver: whose memory it is, and when it goes back."""

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from service import pinned
from service.shapes import Shape

SHAPE = Shape(4, 8)


class StandInDriver:
    """Gives memory of the process and counts what is still held; the real library takes the same arguments."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.held: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._refuses = refuses

    def cuMemHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: int) -> int:  # noqa: N802
        assert flags == pinned.PORTABLE
        if self._refuses:
            return 2  # CUDA_ERROR_OUT_OF_MEMORY
        memory = ctypes.create_string_buffer(b"x" * size.value, size.value)
        address._obj.value = ctypes.addressof(memory)
        self.held[ctypes.addressof(memory)] = memory
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = 1
        return 0

    def cuMemFreeHost(self, address: ctypes.c_void_p) -> int:  # noqa: N802
        del self.held[address.value or 0]
        return 0


def test_page_locked_memory_is_zeroed_and_goes_back_with_the_last_array_on_it(monkeypatch: pytest.MonkeyPatch):
    driver = StandInDriver()
    monkeypatch.setattr(pinned, "_driver", lambda: driver)
    array = pinned.host_array(SHAPE, np.int64, "cuda")
    assert array.shape == SHAPE
    assert array.dtype == np.int64
    assert not array.any()
    assert list(driver.held) == [array.ctypes.data]
    part = array[1:, 2:]
    del array
    gc.collect()
    assert driver.held
    del part
    gc.collect()
    assert not driver.held


@pytest.mark.parametrize("driver", [None, StandInDriver(refuses=True)])
def test_where_there_is_none_ordinary_memory_does(
    driver: StandInDriver | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(pinned, "_driver", lambda: driver)
    assert not pinned.host_array(SHAPE, np.int64, "cuda").any()
    assert "page-locked" in caplog.text


def test_the_cpu_needs_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pinned, "_driver", lambda: pytest.fail("asked for"))
    assert pinned.host_array(SHAPE, np.int64, "cpu").shape == SHAPE
