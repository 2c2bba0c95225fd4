"""What can go wrong with a load test itself; what goes wrong with a request is in its result."""

from artifacts.errors import HlmError


class LoadTestError(HlmError):
    """The test cannot be run, or what it was given makes no sense."""
