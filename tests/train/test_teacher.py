"""What phase 1 rests on beside its labels."""

from pathlib import Path

import pytest

from samples.labelled import labelled_files
from train.data import read_inventory
from train.errors import TrainError
from train.recipe import SHIPPED, Recipe, load_recipe
from train.teacher import _key, made_up_queries


def recipe_in(directory: Path, title_queries: float) -> Recipe:
    """The smoke recipe on the files of a directory."""
    recipe = load_recipe(SHIPPED / "smoke.yaml")
    data = recipe.data.model_copy(update={"train": [directory], "dev": [directory]})
    teacher = recipe.teacher.model_copy(update={"title_queries": title_queries})
    return recipe.model_copy(update={"data": data, "teacher": teacher})


def test_queries_that_measure_are_read_only_where_titles_teach(tmp_path: Path):
    for name, content in labelled_files(ad_count=50, query_count=20, unlabelled_count=20, seed=1).items():
        (tmp_path / name).write_bytes(content)
    dev = tmp_path / "queries.dev.tsv"
    without, with_titles = recipe_in(tmp_path, 0), recipe_in(tmp_path, 1)
    inventory = read_inventory(without.data)
    keys = _key(without), _key(with_titles)
    assert keys[0] != keys[1]
    assert made_up_queries(with_titles, inventory).texts
    dev.write_text("query_id\ttext\nd1\tgarden chair\n")
    assert _key(without) == keys[0]
    assert _key(with_titles) != keys[1]
    dev.unlink()
    assert _key(without) == keys[0]
    assert made_up_queries(without, inventory).texts == []
    with pytest.raises(TrainError, match=r"queries\.dev\.tsv: cannot be read"):
        _key(with_titles)
