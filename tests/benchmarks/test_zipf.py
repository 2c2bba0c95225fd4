import gzip
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.queries import read_queries
from benchmarks.zipf import hit_ratio

HIT = 'hlm_cache_lookups_total{cache="embedding",result="hit"}'
MISS = 'hlm_cache_lookups_total{cache="embedding",result="miss"}'
OTHER = 'hlm_cache_lookups_total{cache="result",result="hit"}'


def test_the_hit_ratio_is_that_of_the_embedding_cache_between_two_readings():
    assert hit_ratio({HIT: 10, MISS: 90, OTHER: 5}, {HIT: 40, MISS: 160, OTHER: 500}) == pytest.approx(0.3)


def test_a_server_without_lookups_has_no_hit_ratio():
    assert hit_ratio({}, {"hlm_requests_total": 5.0}) is None
    assert hit_ratio({HIT: 10, MISS: 90}, {HIT: 10, MISS: 90}) is None


@pytest.mark.parametrize(
    "content",
    ["query_id\ttext\n1\tcordless drill\n2\tangle grinder\n", "text\tsource\ncordless drill\tx\nangle grinder\ty\n"],
    ids=["labelled", "unlabelled"],
)
def test_queries_are_read_from_the_column_text(tmp_path: Path, content: str):
    plain, packed = tmp_path / "queries.tsv", tmp_path / "queries.tsv.gz"
    plain.write_text(content)
    packed.write_bytes(gzip.compress(content.encode()))
    assert read_queries(plain) == read_queries(packed) == ["cordless drill", "angle grinder"]


def test_a_file_without_that_column_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "queries.tsv"
    path.write_text("cordless drill\nangle grinder\n")
    with pytest.raises(BenchmarkError, match=r"queries\.tsv: expected a header line with a column text"):
        read_queries(path)
