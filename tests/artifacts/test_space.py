"""The embedding space's id: equal exactly where embeddings are comparable."""

import pytest
from pydantic import ValidationError

from artifacts.space import EmbeddingSpace

FIELDS = {"teacher": "t", "revision": "r", "dim": 384, "pooling": "mean", "normalized": True}


def test_a_space_without_matryoshka_dims_keeps_the_id_from_before_there_were_any():
    assert EmbeddingSpace(**FIELDS).space_id == "9f0144f146bf0283"


@pytest.mark.parametrize(
    "change", [{"revision": "s"}, {"dim": 256}, {"ad_prompt": "ad: "}, {"matryoshka_dims": (128,)}]
)
def test_whatever_changes_embeddings_changes_the_id(change: dict):
    assert EmbeddingSpace(**(FIELDS | change)).space_id != EmbeddingSpace(**FIELDS).space_id


def test_the_name_of_a_teacher_is_a_label_where_a_hash_pins_its_weights():
    pinned = FIELDS | {"revision": "sha256:0"}
    assert EmbeddingSpace(**pinned).space_id == EmbeddingSpace(**(pinned | {"teacher": "copy"})).space_id


def test_a_space_with_matryoshka_dims_is_read_as_it_was_written():
    space = EmbeddingSpace(**FIELDS, matryoshka_dims=(128, 256))
    assert EmbeddingSpace.model_validate_json(space.model_dump_json()) == space


@pytest.mark.parametrize("dims", [(384,), (0,), (256, 128), (128, 128), (512,)])
def test_matryoshka_dims_are_rising_lengths_below_dim(dims: tuple[int, ...]):
    with pytest.raises(ValidationError, match="expected rising lengths below dim 384"):
        EmbeddingSpace(**FIELDS, matryoshka_dims=dims)
