import json
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.replay import read_log
from loadtest.result import read_result
from tests.client.standin import answer, serve
from tests.loadtest.running import loadtest


def write(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def record(second: float, query: str = "drill", **fields: object) -> dict[str, object]:
    return {"time": f"2026-11-23T14:00:{second:06.3f}Z", "query": query, "top_k": 7, "filters": {}, **fields}


def test_requests_come_in_the_order_of_their_time_from_all_files(tmp_path: Path):
    write(tmp_path / "requests-1.ndjson", record(3, "c", filters={"market": "us"}), record(1, "a"))
    with write(tmp_path / "requests-2.ndjson", record(2.5, "b")).open("a") as cut:
        cut.write('{"time": "2026-')
    logged = read_log(tmp_path, timeout_ms=50)
    assert [(one.at_s, one.request["query"]) for one in logged] == [(0, "a"), (1.5, "b"), (2, "c")]
    assert logged[0].request == {"query": "a", "top_k": 7, "timeout_ms": 50}
    assert logged[2].request["filters"] == {"market": "us"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "holds no request"),
        ('{"time": "2026-11-23T14:00:00Z", "query_hash": "5f"}', "written with `query_text: text`"),
        ('{"time": "noon", "query": "a"}', "'noon' is no time"),
    ],
)
def test_a_log_that_cannot_be_replayed_is_refused(tmp_path: Path, line: str, complaint: str):
    path = tmp_path / "requests.ndjson"
    path.write_text(line)
    with pytest.raises(LoadTestError, match=complaint):
        read_log(path, 50)


def test_a_log_that_is_not_there_is_said_to_be_so(tmp_path: Path):
    with pytest.raises(
        LoadTestError, match=r"no\.ndjson: cannot be read as a request log \(No such file or directory\)"
    ):
        read_log(tmp_path / "no.ndjson", 50)


def test_a_replay_at_four_times_the_speed_by_two_workers(tmp_path: Path):
    log = write(tmp_path / "r.ndjson", *[record(number / 5, f"query {number}") for number in range(41)])
    with serve(lambda _: answer(["a"])) as service:
        options = ("--url", service.url, "--speed", "4", "--workers", "2", "--out", str(tmp_path / "a.json"))
        loadtest("replay", str(log), *options)
    assert sorted(one["query"] for one in service.requests[1:]) == sorted(f"query {number}" for number in range(41))
    (phase,) = read_result(tmp_path / "a.json").phases
    assert phase.seconds == 2
    assert phase.load == "20.5/s, replay at 4 ×"
