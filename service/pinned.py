"""Page-locked host memory: a GPU copies from it by itself, where other memory goes through a buffer of the driver's."""

import ctypes
import logging
import weakref
from functools import cache

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.shapes import Shape

PORTABLE = 1
"""`CU_MEMHOSTALLOC_PORTABLE`: page-locked for every context."""

logger = logging.getLogger(__name__)


def host_array(shape: Shape, dtype: DTypeLike, device_type: str) -> NDArray[np.int64]:
    """Zeros to copy to a device from; page-locked for CUDA, and ordinary memory where that cannot be had."""
    array = _page_locked(int(np.prod(shape)) * np.dtype(dtype).itemsize) if device_type == "cuda" else None
    if array is None:
        return np.zeros(shape, dtype=dtype)
    zeros: NDArray[np.int64] = array.view(dtype).reshape(shape)
    zeros.fill(0)
    return zeros


def _page_locked(size: int) -> NDArray[np.uint8] | None:
    """So many bytes, given back with the last array that uses them; the caller's thread has a CUDA context."""
    driver, address = _driver(), ctypes.c_void_p()
    if driver is None or driver.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), PORTABLE):
        logger.warning("no page-locked memory can be had: copies to the GPU take some microseconds more")
        return None
    memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
    weakref.finalize(memory, _free, driver, address).atexit = False  # the driver is gone by then
    return np.frombuffer(memoryview(memory), dtype=np.uint8)


def _free(driver: ctypes.CDLL, address: ctypes.c_void_p) -> None:
    """Give back, in whichever thread: one without a context takes that of the first device."""
    context = ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(context))
    if not context:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        driver.cuCtxSetCurrent(context)
    driver.cuMemFreeHost(address)


@cache
def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
