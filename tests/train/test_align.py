"""What alignment learns from."""

from pathlib import Path

import yaml

from export.onnx_graph import pooling_name
from samples.labelled import labelled_files
from tests.train.test_run import STEPS, recipe_of
from train.align import align_student, read_queries
from train.data import plan_query_batches
from train.encoders import load_encoder
from train.runs import Run
from train.teacher import train_teacher


def test_a_query_that_is_held_out_is_in_no_batch(tmp_path: Path):
    for name, content in labelled_files(ad_count=300, query_count=40, unlabelled_count=200, seed=1).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe_of("bert", tmp_path)))
    queries = read_queries(Run.open(str(tmp_path / "tiny.yaml"), tmp_path))
    planned = {row for batch in plan_query_batches(queries.weights, 8, epochs=3, seed=1) for row in batch}
    assert len(queries.held_out) == 20
    assert planned == set(queries.learnt.tolist())
    assert not planned & set(queries.held_out.tolist())


def test_a_start_without_a_pooling_of_its_own_is_told_one(tmp_path: Path):
    for name, content in labelled_files(ad_count=300, query_count=40, unlabelled_count=100, seed=1).items():
        (tmp_path / name).write_bytes(content)
    recipe = recipe_of("qwen3", tmp_path) | {"joint": None, "serving": None}
    student = {"name": "told", "start": str(tmp_path / "qwen3"), "pooling": "lasttoken", "optimisation": STEPS}
    recipe["students"] = [student | {"head": "kept"}]
    recipe["dim"] = 32
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    run = Run.open(str(tmp_path / "tiny.yaml"), tmp_path)
    train_teacher(run)
    align_student(run, run.recipe.students[0])
    assert pooling_name(load_encoder(str(run.aligned("told")))[1]) == "lasttoken"
