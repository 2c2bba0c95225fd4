from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic import FilterShare, Source, Traffic, read_filters, read_queries

COUNT = 4_000


def drawn(tmp_path: Path, queries: list[str], **options: Any) -> list[dict[str, Any]]:
    path = tmp_path / "queries.txt"
    path.write_text("".join(f"{query}\n" for query in queries))
    return list(islice(Traffic(queries=path, **options).requests(), COUNT))


def test_popularity_falls_with_the_rank(tmp_path: Path):
    counts = Counter(request["query"] for request in drawn(tmp_path, [f"q{n}" for n in range(100)], zipf=1))
    harmonic = sum(1 / rank for rank in range(1, 101))
    for rank in (1, 2, 5):
        assert counts[f"q{rank - 1}"] / COUNT == pytest.approx(1 / rank / harmonic, rel=0.15)


def test_a_share_of_queries_is_asked_once_and_made_of_the_files_words(tmp_path: Path):
    known = ["red shoe", "blue shoe", "drill"]
    texts = [request["query"] for request in drawn(tmp_path, known, new_share=0.15)]
    new = [text for text in texts if text not in known]
    assert len(new) / COUNT == pytest.approx(0.15, abs=0.02)
    assert len(set(new)) == len(new)
    assert {word for text in new[:3] for word in text.split() if not word.isdigit()} <= {"red", "blue", "shoe", "drill"}


def test_lengths_are_as_asked_for(tmp_path: Path):
    requests = drawn(tmp_path, ["a", "b c", "d e f"], lengths={1: 3, 3: 1}, new_share=0.5)
    words = Counter(len([word for word in one["query"].split() if not word.isdigit()]) for one in requests)
    assert words.keys() == {1, 3}
    assert words[1] / COUNT == pytest.approx(0.75, abs=0.03)


def test_top_k_and_filters_come_in_their_shares(tmp_path: Path):
    us = FilterShare(share=0.3, filters={"market": "us"})
    requests = drawn(tmp_path, ["a"], top_k={10: 1, 100: 4}, filters=(us,))
    assert sum(one["top_k"] == 10 for one in requests) / COUNT == pytest.approx(0.2, abs=0.03)
    filtered = [one["filters"] for one in requests if "filters" in one]
    assert len(filtered) / COUNT == pytest.approx(0.3, abs=0.03)
    assert filtered[0] == {"market": "us"}


def test_the_same_seed_and_worker_ask_the_same(tmp_path: Path):
    traffic = Traffic(zipf=1, new_share=0.2, seed=3)
    first, again, other = (list(islice(traffic.requests(Source(worker, 2)), 50)) for worker in (0, 0, 1))
    assert first == again
    assert first != other


def test_what_is_new_was_asked_by_no_other_worker_and_in_no_earlier_load(tmp_path: Path):
    path = tmp_path / "queries.txt"
    path.write_text("red shoe\nblue drill\nsaw\n")  # so few words that combinations soon are used up
    traffic, texts = Traffic(queries=path, new_share=1), []
    for worker in range(2):
        asked: set[str] = set()
        for load in range(2):
            requests = traffic.requests(Source(worker, 2, load, asked))
            texts += [request["query"] for request in islice(requests, 200)]
    assert len(set(texts)) == len(texts) == 800


def test_sources_that_ask_in_turn_begin_at_places_of_their_own(tmp_path: Path):
    path = tmp_path / "queries.txt"
    path.write_text("".join(f"q{number}\n" for number in range(1_000)))
    traffic = Traffic(queries=path)
    asked = [[one["query"] for one in islice(traffic.requests(Source(worker, 2)), 1_000)] for worker in (0, 1)]
    assert sorted(asked[0]) == sorted(asked[1])
    assert asked[0][0] != asked[1][0]
    assert asked[0][(asked[0].index("q0") + 1) % 1_000] == "q1"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "it holds no query"),
        ("query_id\ttext\nq1\t \n", "it holds no query"),
        ("query_id\ttext\nq1\tdrill\nq2\n", "row 3 has no column `text`"),
    ],
    ids=["empty", "of blanks", "a short row"],
)
def test_a_query_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str, complaint: str):
    path = tmp_path / "queries.tsv"
    path.write_text(content)
    with pytest.raises(LoadTestError, match=rf"queries\.tsv: cannot be read as queries \({complaint}\)"):
        read_queries(path)


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", '[{"share": 2, "filters": {}}]', '[{"share": 0.6, "filters": {}}, {"share": 0.6, "filters": {}}]'],
)
def test_a_filter_mix_that_is_none_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "filters.json"
    path.write_text(content)
    with pytest.raises(LoadTestError, match=r"filters\.json: "):
        read_filters(path)
