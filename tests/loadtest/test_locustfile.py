import csv
import gzip
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.standin import Reply, answer, problem, serve
from tests.loadtest.running import free_port, workers_by_hand

ROOT = Path(__file__).resolve().parents[2]

Rows = dict[tuple[str, str], dict[str, str]]


def locust(directory: Path, url: str, *options: str, seconds: int = 3) -> subprocess.CompletedProcess[str]:
    """Run it headless with two users, as a person would, and leave its tables as CSV in `directory`."""
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--host", url]
    command += ["-u", "2", "-r", "2", "-t", f"{seconds}s", "--csv", str(directory / "load"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def table(directory: Path, name: str = "stats") -> list[dict[str, str]]:
    with (directory / f"load_{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Rows]:
    """One run with a query file, which several tests look at: the requests that came, and Locust's rows."""
    directory = tmp_path_factory.mktemp("load")
    queries = directory / "queries.tsv.gz"
    queries.write_bytes(gzip.compress("query_id\ttext\nq1\tdrill\nq2\tSäge\n".encode()))
    with serve(lambda _: answer(["a", "b"])) as service:
        options = ("--queries", str(queries), "--top-k", "7", "--timeout-ms", "70")
        result = locust(directory, service.url, *options)
    assert result.returncode == 0, result.stderr
    return service.requests, {(row["Type"], row["Name"]): row for row in table(directory)}


def test_users_post_the_queries_of_the_file_in_turn(good_run: tuple[list[dict[str, Any]], Rows]):
    requests, _ = good_run
    assert all(request == {"query": request["query"], "top_k": 7, "timeout_ms": 70} for request in requests)
    texts = [request["query"] for request in requests]
    assert set(texts) == {"drill", "Säge"}
    assert abs(texts.count("drill") - texts.count("Säge")) <= 2  # one each may be under way at the end


def test_the_servers_stage_timings_are_rows_in_microseconds(good_run: tuple[list[dict[str, Any]], Rows]):
    _, rows = good_run
    stages = {name: float(row["Average Response Time"]) for (kind, name), row in rows.items() if kind == "stage"}
    assert stages.keys() == {"tokenize (µs)", "queue (µs)", "encode (µs)", "search (µs)", "total (µs)"}
    assert stages["tokenize (µs)"] == 50
    assert stages["encode (µs)"] == 1125


def test_stage_rows_do_not_count_as_requests(good_run: tuple[list[dict[str, Any]], Rows]):
    requests, rows = good_run
    sent = int(rows["POST", "/retrieve"]["Request Count"])
    assert 0 < sent <= len(requests)
    assert int(rows["", "Aggregated"]["Request Count"]) == sent
    assert int(rows["POST", "/retrieve"]["Failure Count"]) == 0


def test_each_kind_of_bad_answer_is_a_failure_of_its_own(tmp_path: Path):
    replies = itertools.cycle(
        [
            problem(503, "overloaded", "256 are queued"),
            Reply(502, b"<h1>Bad Gateway</h1>", "text/html"),
            Reply(200, b"<html>"),
            Reply(200, b"{}"),
            answer(["a", "b", "a"]),
            answer(["a", "b"], falling=-0.001),
            answer([f"ad-{number}" for number in range(101)]),
        ]
    )
    with serve(lambda _: next(replies)) as service:
        result = locust(tmp_path, service.url)
    assert result.returncode == 1
    (row,) = (row for row in table(tmp_path) if row["Type"] == "POST")
    assert row["Failure Count"] == row["Request Count"]
    expected = [
        "503 overloaded",
        "502, but not JSON",
        "200, but not JSON",
        "200, but malformed: KeyError: 'ads'",
        "200, but malformed: ValueError: an ad comes twice",
        "200, but malformed: ValueError: scores do not fall",
        "200, but malformed: ValueError: more ads than asked for",
    ]
    found = [row["Error"] for row in table(tmp_path, "failures")]
    assert len(found) == len(expected)
    assert all(any(message in error for error in found) for message in expected), found


def test_open_loop_with_plain_locust(tmp_path: Path):
    def slow(_: dict[str, Any]) -> Reply:
        time.sleep(0.5)
        return answer(["a"])

    with serve(slow) as service:
        result = locust(tmp_path, service.url, "--rate", "20", "--arrivals", "constant")
    assert result.returncode == 0, result.stderr
    assert 12 < len(service.requests) <= 122  # of two users at 20/s each; in a closed loop they could ask 12 in 3 s


def test_workers_of_locusts_own_ask_each_its_own(tmp_path: Path):
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(f"query {number}\n" for number in range(10_000)))
    port = free_port()
    with workers_by_hand(port) as workers, serve(lambda _: answer(["a"])) as service:
        options = ("--master", "--expect-workers", "2", "--master-bind-port", port)
        result = locust(tmp_path, service.url, *options, "--queries", str(queries), "--rate", "20")
        assert result.returncode == 0, result.stderr
        assert [worker.wait(timeout=30) for worker in workers] == [0, 0]
    texts = [request["query"] for request in service.requests]
    assert len(set(texts)) == len(texts)
    assert 12 < len(texts) <= 122  # two users at 20/s each; a closed loop would have asked thousands


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        pytest.param(lambda path: None, "No such file or directory", id="missing"),
        pytest.param(lambda path: path.write_text("query_id\ttext\n"), "it holds no query", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), "can't decode", id="not UTF-8"),
    ],
)
def test_a_query_file_that_cannot_be_used_ends_it_with_one_sentence(
    tmp_path: Path, make: Callable[[Path], object], complaint: str
):
    path = tmp_path / "queries.tsv"
    make(path)
    result = locust(tmp_path, "http://127.0.0.1:9", "--queries", str(path))
    assert result.returncode == 1
    assert f"{path}: cannot be read as queries" in result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
