"""The one error that the command line turns into a message instead of a traceback."""


class HlmError(Exception):
    """Base of every error that its reader can act on; each room derives its own.

    The message is one sentence that names the thing, what was expected and what was found.
    """
