"""Recipes: the shipped ones are valid, and a wrong one is refused in words."""

from pathlib import Path

import pytest
import yaml

from train.errors import TrainError
from train.recipe import SHIPPED, find_recipe, load_recipe, overlay, read_source, recipe_of


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


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("arms/*.yaml")), ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_sweep_is_valid(path: Path):
    source = read_source(find_recipe(f"arms/{path.stem}"))
    for arm in source.arms or [None]:
        recipe_of(source, arm)


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path: Path):
    (tmp_path / "warm.yaml").write_text(
        "base: smoke\nteacher: {loss: {temperature: 0.1}}\nstudents: []\nserving: null\n"
    )
    (tmp_path / "warmer.yaml").write_text(f"base: {tmp_path}/warm.yaml\nseed: 7\n")
    smoke, warmer = load_recipe(find_recipe("smoke")), load_recipe(tmp_path / "warmer.yaml")
    loss = smoke.teacher.loss.model_copy(update={"temperature": 0.1})
    teacher = smoke.teacher.model_copy(update={"loss": loss})
    assert warmer == smoke.model_copy(update={"teacher": teacher, "students": [], "serving": None, "seed": 7})
    assert read_source(tmp_path / "warmer.yaml").bases == ("warm", "smoke")


def test_mappings_are_merged_and_lists_replaced():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert overlay(base, {"a": {"c": [4]}, "d": {"e": 5}}) == {"a": {"b": 1, "c": [4]}, "d": {"e": 5}}
    assert base["a"] == {"b": 1, "c": [1, 2]}


def test_a_sweep_is_no_recipe_and_no_base(tmp_path: Path):
    (tmp_path / "sweep.yaml").write_text("base: smoke\narms: {one: {}, two: {seed: 2}}\n")
    (tmp_path / "above.yaml").write_text(f"base: {tmp_path}/sweep.yaml\n")
    assert recipe_of(read_source(tmp_path / "sweep.yaml"), "two").seed == 2
    with pytest.raises(TrainError, match=r"is a sweep; expected one of its arms \['one', 'two'\], not None"):
        load_recipe(tmp_path / "sweep.yaml")
    with pytest.raises(TrainError, match="its base sweep is a sweep"):
        read_source(tmp_path / "above.yaml")


def test_the_arms_of_refinement_take_the_students_that_small_has_aligned():
    small, source = load_recipe(find_recipe("small")), read_source(find_recipe("arms/refine"))
    for arm in source.arms:
        for student in recipe_of(source, arm).students:
            aligned = small.student(student.name).model_copy(update={"refine": student.refine})
            assert student == aligned, (arm, student.name)
    assert recipe_of(source, "anchor").student("l3") == small.student("l3")
