"""The sample of queries that recall is measured with."""

from pathlib import Path

import numpy as np
import pytest

from index.ads import AdTableBuilder
from index.errors import QuerySampleError
from index.queries import SAMPLE_SIZE, TITLE_WORDS, read_queries, sample_queries
from tests.index.support import WordEmbedder, unit_vectors


class Recorder(WordEmbedder):
    def __init__(self):
        super().__init__()
        self.queries: list[str] = []

    def tokenize(self, query: str) -> list[int]:
        self.queries.append(query)
        return super().tokenize(query)


@pytest.fixture
def ads():
    builder = AdTableBuilder()
    for number in range(1200):
        builder.append(str(number), {"title": f"drill {number} a b c d e"})
    return builder.build()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("query_id\ttext\nq1\tcordless drill\nq2\tpipe\n", ["cordless drill", "pipe"]),
        ("cordless drill\n\n  pipe \ncordless drill\n", ["cordless drill", "pipe"]),
        ("query_id\ttext\r\nq1\tpipe\r\n", ["pipe"]),
        ("a\u2028b\n", ["a\u2028b"]),
    ],
    ids=["with ids", "one a line", "windows", "a line separator inside"],
)
def test_queries_come_with_ids_or_one_a_line(tmp_path: Path, content: str, expected: list[str]):
    (tmp_path / "queries").write_bytes(content.encode())
    assert read_queries(tmp_path / "queries") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no query"), (b"query_id\ttext\n", "holds no query"), (b"\xff", "cannot be read as queries")],
    ids=["empty", "header only", "not UTF-8"],
)
def test_a_file_without_queries_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "queries").write_bytes(content)
    with pytest.raises(QuerySampleError, match=message):
        read_queries(tmp_path / "queries")


def test_a_file_of_queries_is_sampled_the_same_way_each_time(tmp_path: Path, ads):
    (tmp_path / "q.txt").write_text("\n".join(f"query {number}" for number in range(3000)))
    samples = [sample_queries(tmp_path / "q.txt", ads, unit_vectors(1200), WordEmbedder()) for _ in range(2)]
    assert samples[0].source == "q.txt"
    assert samples[0].embeddings.shape == (SAMPLE_SIZE, 32)
    assert (samples[0].embeddings == samples[1].embeddings).all()


def test_without_queries_short_titles_stand_in(ads):
    embedder = Recorder()
    sample = sample_queries(None, ads, unit_vectors(1200), embedder)
    assert sample.source == f"first {TITLE_WORDS} words of ad titles"
    assert len(set(embedder.queries)) == SAMPLE_SIZE
    assert {query.split()[0] for query in embedder.queries} == {"drill"}
    assert {len(query.split()) for query in embedder.queries} == {TITLE_WORDS}


def test_without_an_encoder_noisy_ad_embeddings_stand_in(ads):
    vectors = unit_vectors(1200)
    sample = sample_queries(None, ads, vectors, None)
    assert "noise" in sample.source
    assert np.linalg.norm(sample.embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert (sample.embeddings @ vectors.T).max(axis=1).mean() == pytest.approx(0.8, abs=0.03)


def test_queries_without_an_encoder_are_refused(tmp_path: Path, ads):
    (tmp_path / "q.txt").write_text("drill")
    with pytest.raises(QuerySampleError, match=r"q\.txt: queries need an encoder"):
        sample_queries(tmp_path / "q.txt", ads, unit_vectors(1200), None)
