"""What holds for all tests: commands write as into a pipe, whatever the environment says of terminals and colours.

Where pytest has several workers, one of them has all tests of `tests/e2e`, which share artifacts that the first of them
builds.
"""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

for _name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS", "TERMINAL_WIDTH"):
    os.environ.pop(_name, None)  # before typer is imported, which reads some of them then


class _EndToEndTogether(LoadScopeScheduling):
    """A worker takes a file at a time, or all of `tests/e2e`."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _EndToEndTogether(config, log)
