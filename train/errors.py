"""The error of this room."""

from artifacts.errors import HlmError


class TrainError(HlmError):
    """A recipe, its data or a checkpoint cannot be used. The message is one sentence that says why."""
