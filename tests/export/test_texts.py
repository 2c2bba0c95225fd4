import gzip
from pathlib import Path

import pytest

from export.source import ExportError
from export.texts import read_texts

WORDS = [f"item {number}" for number in range(150)]
PLAIN = "".join(f"{word}\n" for word in WORDS)
TABLE = "query_id\ttext\tgrade\n" + "".join(f"q{number}\t{word}\t2\n" for number, word in enumerate(WORDS))
FEED = "".join(f'{{"ad_id": "{number}", "title": "{word}", "description": "x"}}\n' for number, word in enumerate(WORDS))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("queries.txt", PLAIN, WORDS, id="one a line"),
        pytest.param("queries.tsv", TABLE, WORDS, id="column of a table"),
        pytest.param("blank.txt", PLAIN.replace("\n", "\n\n"), WORDS, id="blank lines between"),
        pytest.param("ads.jsonl", FEED, [f"{word} x" for word in WORDS], id="ad feed"),
        pytest.param("ads.jsonl", FEED.replace('"x"', "null"), WORDS, id="ad feed without descriptions"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_texts_are_read_from_each_form(tmp_path: Path, name: str, content: str, expected: list[str], compressed: bool):
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    texts = read_texts(path, path)
    assert texts.queries == texts.ads == expected
    assert texts.source == path.name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("short.txt", b"one\ntwo\n", "has 2 texts", id="too few"),
        pytest.param("empty.txt", b"", "no query", id="empty"),
        pytest.param("binary.txt", b"\xff\xfe\x00", "UTF-8", id="not text"),
        pytest.param("bad.txt.gz", b"not gzip", "UTF-8 text", id="not gzip"),
        pytest.param("cut.txt.gz", gzip.compress(PLAIN.encode())[:60], "UTF-8 text", id="cut gzip"),
        pytest.param("ads.jsonl", b'{"title": "a"\n', "a line is not", id="not JSON"),
        pytest.param("ads.jsonl", b'{"name": "a"}\n', "title", id="ad without a title"),
        pytest.param("ads.jsonl", b"[1]\n", "a line is not", id="ad that is a list"),
        pytest.param("q.tsv", b"query_id\ttext\nq1\n", "a line is not", id="short row"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message) as caught:
        read_texts(path, path)
    assert str(path) in str(caught.value)
