"""Clusters and codes: every ad is in one slot, near ones come first, and the best by code are nearly the best."""

from pathlib import Path

import numpy as np
import pytest

from artifacts.store import ArtifactError
from index.coarse import Coarse
from tests.index.support import DIM, unit_vectors

ROWS = np.arange(500, 2500)
VECTORS = unit_vectors(3000)
COARSE = Coarse.build(VECTORS, ROWS)


def test_runs_have_every_position_once_and_the_nearest_cluster_first():
    query = VECTORS[700]
    runs = COARSE.from_nearest(query)
    taken = []
    while runs.left:
        taken.append(COARSE.members[runs.take(300)])
    assert all(len(run) >= 300 for run in taken[:-1])
    assert sorted(np.concatenate(taken).tolist()) == list(range(2000))
    means = [float((VECTORS[ROWS[run]] @ query).mean()) for run in taken]
    assert means[0] > means[-1]


def test_the_best_by_code_are_nearly_the_best():
    everything = np.arange(2000)
    for query in unit_vectors(20, seed=5):
        found = ROWS[COARSE.members[COARSE.best(query, everything, 100)]]
        truth = ROWS[np.argsort(-(VECTORS[ROWS] @ query))[:50]]
        assert len(set(found.tolist()) & set(truth.tolist())) >= 49


def test_a_saved_one_comes_back_and_another_segments_is_refused(tmp_path: Path):
    COARSE.save(tmp_path)
    loaded = Coarse.load(tmp_path, dim=DIM, count=2000)
    assert loaded.members.tolist() == COARSE.members.tolist()
    assert (loaded.codes == COARSE.codes).all()
    with pytest.raises(ArtifactError, match="not of 1999 ads of dim 32"):
        Coarse.load(tmp_path, dim=DIM, count=1999)


def test_a_continued_one_has_the_ads_that_stay_and_those_that_came():
    gone, added = np.array([3, 10, 1999]), unit_vectors(40, seed=8)
    continued = COARSE.continued(gone, added)
    vectors = np.concatenate([np.delete(VECTORS[ROWS], gone, axis=0), added])
    assert sorted(continued.members.tolist()) == list(range(2037))
    for position in (0, 1996, 1997, 2036):
        best = continued.members[continued.best(vectors[position], np.arange(2037), 3)]
        assert position in best
