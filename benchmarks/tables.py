"""How benchmarks show their tables."""

from rich.console import Console

LOG_COLUMNS = 140


def wide_console() -> Console:
    """Standard output; a log, which has no width of its own, is wide enough for every table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=LOG_COLUMNS)
