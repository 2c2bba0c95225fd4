"""Why a benchmark could not run."""

from artifacts.errors import HlmError


class BenchmarkError(HlmError):
    """An input is missing or the measured server failed."""
