"""What went wrong on a device, told from onnxruntime's message: it has one class of exception for everything."""

import re
from typing import ClassVar

from artifacts.errors import HlmError

OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate memory|_STATUS_ALLOC_FAILED|CUDA(?: failure| error) 2\b", re.IGNORECASE
)
LOST_CODES = frozenset({46, 100, 101, 214, 220, 700, 702, *range(709, 722), 999})
"""Of the CUDA runtime: no device, a broken one, or a context that a kernel has ruined. From then on all calls of the
process fail, so only a new one helps."""
LOST = re.compile(r"fallen off the bus|device (?:is )?lost|uncorrectable ECC", re.IGNORECASE)
CODE = re.compile(r"CUDA(?: failure| error):? (\d+)")


class DeviceFaultError(HlmError):
    """A batch failed, and not for what was in it."""

    kind: ClassVar[str]


class DeviceOutOfMemoryError(DeviceFaultError):
    """The device has no room for a batch; for a smaller one it may have."""

    kind = "out_of_memory"


class DeviceLostError(DeviceFaultError):
    """The device is gone for this process, whatever is tried."""

    kind = "lost"


FAULTS = (DeviceOutOfMemoryError.kind, DeviceLostError.kind)


def fault_of(error: Exception) -> DeviceFaultError | None:
    """Which fault an exception of onnxruntime's stands for; None where it says nothing of the device."""
    message = str(error)
    codes = {int(code) for code in CODE.findall(message)}
    if LOST.search(message) or codes & LOST_CODES:
        return DeviceLostError(f"the device is lost: {message}")
    if OUT_OF_MEMORY.search(message):
        return DeviceOutOfMemoryError(f"the device is out of memory: {message}")
    return None
