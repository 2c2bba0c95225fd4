from pathlib import Path

import pytest

from client.errors import ClientError
from client.trec import read_qrels, read_queries


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.tsv"


def test_queries_keep_quotes_case_and_order(file: Path):
    file.write_text('query_id\ttext\nq2\t2" x 4" "Pine"\nq1\tl\u2028bracket\r\n', encoding="utf-8")
    assert list(read_queries(file).items()) == [("q2", '2" x 4" "Pine"'), ("q1", "l\u2028bracket")]


def test_a_byte_order_mark_and_further_columns_are_ignored(file: Path):
    file.write_bytes(b"\xef\xbb\xbfquery_id\ttext\tsource\nq1\tdrill\tlog\n")
    assert read_queries(file) == {"q1": "drill"}


def test_qrels_are_grades_by_query_and_ad(file: Path):
    file.write_text("query_id\tad_id\tgrade\traw\nq1\ta\t2\t2.50\nq1\tb\t0\t1.00\nq2\ta\t1\t2.33\n")
    assert read_qrels(file) == {"q1": {"a": 2, "b": 0}, "q2": {"a": 1}}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"", "is empty; expected a header line", id="empty"),
        pytest.param(b"q1\tdrill\n", ":1: expected a header line beginning query_id <tab> text", id="no header"),
        pytest.param(b"query_id,text\n", ":1: expected a header line .* found 'query_id,text'", id="commas"),
        pytest.param(b"query_id\ttext\nq1\ta\nq2\n", ":3: expected query_id <tab> text, found 'q2'", id="short line"),
        pytest.param(b"query_id\ttext\nq1\t \n", ":2: expected query_id <tab> text", id="blank text"),
        pytest.param(b"query_id\ttext\nq1\ta\nq1\tb\n", ":3: query_id q1 came before", id="same id twice"),
        pytest.param(b"query_id\ttext\nq1\t\xff\n", "not UTF-8", id="not UTF-8"),
    ],
)
def test_a_wrong_query_file_is_refused_with_file_and_line(file: Path, content: bytes, complaint: str):
    file.write_bytes(content)
    with pytest.raises(ClientError, match=complaint) as caught:
        read_queries(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        pytest.param("q1\ta", "expected query_id <tab> ad_id <tab> grade", id="no grade"),
        pytest.param("q1\ta\t2.5", "expected a grade of 0 or above, found '2.5'", id="fraction"),
        pytest.param("q1\ta\t-1", "found '-1'", id="negative"),
        pytest.param("q1\ta\t\u00b2", "found '\u00b2'", id="superscript two"),
        pytest.param("q0\tz\t1", "query q0 and ad z came before", id="same pair twice"),
    ],
)
def test_a_wrong_judgment_is_refused_with_file_and_line(file: Path, line: str, complaint: str):
    file.write_text(f"query_id\tad_id\tgrade\nq0\tz\t1\n{line}\n", encoding="utf-8")
    with pytest.raises(ClientError, match=complaint) as caught:
        read_qrels(file)
    assert str(caught.value).startswith(f"{file}:3: ")


def test_a_file_that_is_not_there_is_one_sentence(file: Path):
    with pytest.raises(ClientError, match=r"file\.tsv: cannot be read \(No such file or directory\)"):
        read_qrels(file)
