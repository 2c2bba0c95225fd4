"""What the usual run leaves out, so that it ends in time."""

import os

import pytest

SLOW = pytest.mark.skipif("HLM_SLOW_TESTS" not in os.environ, reason="takes a minute or more; HLM_SLOW_TESTS=1 runs it")
