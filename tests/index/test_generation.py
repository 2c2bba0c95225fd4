"""A base and its changes, searched as one index, and written as the next base."""

import random
from pathlib import Path

import numpy as np
import pytest

from index.changes import Delete, Upsert
from index.compaction import write_base
from index.generation import Generation, empty_base
from index.load import load_index
from tests.index.live_oracle import BLANK, WANTED, Oracle, assert_answers, queries, random_change, random_upsert


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch):
    """Graphs from 40 ads on, so that small tests have some."""
    for module in ("index.segment", "index.compaction"):
        monkeypatch.setattr(f"{module}.EXACT_BELOW", 40)


def check(generation: Generation, oracle: Oracle) -> None:
    embeddings = queries()
    assert_answers(generation.index.search(embeddings, WANTED), oracle, embeddings)
    assert_answers(generation.index.exact_search(embeddings, WANTED), oracle, embeddings)


@pytest.mark.parametrize("seed", range(4))
def test_changes_and_compactions_agree_with_a_dictionary(tmp_path: Path, seed: int):
    chance, oracle = random.Random(seed), Oracle()
    generation = Generation(empty_base(BLANK))
    for round_number in range(5):
        for _ in range(150):
            generation.apply(
                [oracle.make(random_change(chance, oracle, ids=400)) for _ in range(chance.choice((0, 1, 5)))]
            )
        check(generation, oracle)
        directory = tmp_path / str(round_number)
        manifest = write_base(generation, directory, None, threads=1)
        assert manifest.ad_count == len(oracle.ads)
        generation = Generation(load_index(directory))
        assert generation.sequence == oracle.sequence
        assert generation.later_count == 0
        check(generation, oracle)


def test_a_change_that_comes_twice_does_no_harm(tmp_path: Path):
    chance, oracle = random.Random(5), Oracle()
    generation = Generation(empty_base(BLANK))
    states = [oracle.make(random_change(chance, oracle, ids=50)) for _ in range(300)]
    generation.apply(states)
    generation.apply(states[100:])
    check(generation, oracle)


def test_an_index_may_lose_all_of_its_ads(tmp_path: Path):
    chance, oracle = random.Random(6), Oracle()
    generation = Generation(empty_base(BLANK))
    generation.apply([oracle.make(random_upsert(chance, f"ad-{number}")) for number in range(100)])
    write_base(generation, tmp_path / "full", None, threads=1)
    generation = Generation(load_index(tmp_path / "full"))
    generation.apply([oracle.make(Delete(f"ad-{number}")) for number in range(100)])
    check(generation, oracle)
    write_base(generation, tmp_path / "empty", None, threads=1)
    generation = Generation(load_index(tmp_path / "empty"))
    check(generation, oracle)
    generation.apply([oracle.make(random_upsert(chance, "ad-new"))])
    check(generation, oracle)


def test_a_graph_is_continued_while_most_of_it_stays_and_built_anew_otherwise(tmp_path: Path):
    chance, oracle = random.Random(7), Oracle()
    generation = Generation(empty_base(BLANK))
    for upsert in [random_upsert(chance, f"ad-{number}") for number in range(200)]:
        ad = upsert.ad.model_copy(update={"market": None, "language": None})
        generation.apply([oracle.make(Upsert(ad, upsert.embedding))])
    write_base(generation, tmp_path / "0", None, threads=1)
    dead = []
    for round_number, deletes in enumerate((0, 20, 20, 20)):
        generation = Generation(load_index(tmp_path / str(round_number)))
        generation.apply([oracle.make(Delete(ad_id)) for ad_id in list(oracle.ads)[:deletes]])
        write_base(generation, tmp_path / str(round_number + 1), None, threads=1)
        path = tmp_path / str(round_number + 1) / "segments" / "any-any" / "dead.npy"
        dead.append(len(np.load(path)) if path.exists() else 0)
    assert dead == [0, 20, 40, 0]
    check(Generation(load_index(tmp_path / "4")), oracle)
