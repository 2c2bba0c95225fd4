"""Recipes: the shipped ones are valid, and a wrong one is refused in words."""

from pathlib import Path

import pytest
import yaml

from train.errors import TrainError
from train.recipe import SHIPPED, find_recipe, load_recipe


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid(path: Path):
    recipe = load_recipe(find_recipe(path.stem))
    assert recipe.serving is not None
    assert recipe.student(recipe.serving.student).name == recipe.serving.student


def wrong(change: dict[str, object]) -> dict[str, object]:
    recipe: dict[str, object] = yaml.safe_load((SHIPPED / "smoke.yaml").read_text())
    return recipe | change


STUDENT = {"start": "demo", "optimisation": {"batch_size": 2, "learning_rate": 1}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"dimm": 3}, "dimm: Extra inputs", id="unknown field"),
        pytest.param({"dim": 0}, "dim: Input should be greater", id="out of bounds"),
        pytest.param({"students": [STUDENT | {"name": "a"}] * 2}, "the name a is taken", id="a name twice"),
        pytest.param(
            {"students": [STUDENT | {"name": "a", "start": "b"}, STUDENT | {"name": "b"}]},
            "a starts from b, which must come before it",
            id="the start comes later",
        ),
        pytest.param({"students": [], "serving": {"student": "l3"}}, "there is no student l3", id="serves none"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, change: dict[str, object], complaint: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(wrong(change)))
    with pytest.raises(TrainError, match=complaint):
        load_recipe(path)


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(TrainError, match=r"no such recipe; expected a YAML file or one of .*smoke"):
        find_recipe("nowhere")
