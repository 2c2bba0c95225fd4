"""Golden queries come back as they were written, and what is wrong with them is one sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from artifacts.golden import EMBEDDINGS_NAME, QUERIES_NAME, Golden, load_golden, save_golden
from artifacts.store import ArtifactError

QUERIES = ["cordless drill 18v", "čaj „zelený“", "1/2 inch pipe"]
EMBEDDINGS = np.eye(3, 5, dtype=np.float32)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path):
    save_golden(tmp_path, Golden(QUERIES, EMBEDDINGS))
    loaded = load_golden(tmp_path, 5)
    assert loaded.queries == QUERIES
    np.testing.assert_array_equal(loaded.embeddings, EMBEDDINGS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda d: (d / QUERIES_NAME).unlink(), "run `hlm export` again", id="no queries"),
        pytest.param(lambda d: (d / EMBEDDINGS_NAME).unlink(), "cannot be read", id="no embeddings"),
        pytest.param(lambda d: (d / QUERIES_NAME).write_text("[1]"), "not a list of queries", id="not texts"),
        pytest.param(lambda d: (d / QUERIES_NAME).write_text("[]"), "not a list of queries", id="none"),
        pytest.param(lambda d: (d / QUERIES_NAME).write_text("["), "cannot be read", id="not JSON"),
        pytest.param(
            lambda d: (d / QUERIES_NAME).write_text('["a"]'), r"shape \(1, 5\) is expected", id="another number"
        ),
        pytest.param(
            lambda d: np.save(d / EMBEDDINGS_NAME, EMBEDDINGS.astype(np.float64)), "holds float64", id="another type"
        ),
        pytest.param(lambda d: np.save(d / EMBEDDINGS_NAME, EMBEDDINGS[:, :4]), r"shape \(3, 4\)", id="another dim"),
        pytest.param(lambda d: (d / EMBEDDINGS_NAME).write_bytes(b"x"), "cannot be read", id="not an array"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[Path], object], message: str):
    save_golden(tmp_path, Golden(QUERIES, EMBEDDINGS))
    spoil(tmp_path)
    with pytest.raises(ArtifactError, match=message) as refused:
        load_golden(tmp_path, 5)
    assert str(tmp_path) in str(refused.value)
