"""What alignment learns from."""

from pathlib import Path

import yaml

from samples.labelled import labelled_files
from tests.train.test_run import recipe_of
from train.align import read_queries
from train.data import plan_query_batches
from train.runs import Run


def test_a_query_that_is_held_out_is_in_no_batch(tmp_path: Path):
    for name, content in labelled_files(ad_count=300, query_count=40, unlabelled_count=200, seed=1).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe_of("bert", tmp_path)))
    queries = read_queries(Run.open(str(tmp_path / "tiny.yaml"), tmp_path))
    planned = {row for batch in plan_query_batches(queries.weights, 8, epochs=3, seed=1) for row in batch}
    assert len(queries.held_out) == 20
    assert planned == set(queries.learnt.tolist())
    assert not planned & set(queries.held_out.tolist())
