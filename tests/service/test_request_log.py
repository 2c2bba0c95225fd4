"""The request log: what is in it, who is not, rotation, retention, and disks that refuse."""

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from index.ad_index import SearchHits
from index.ads import AdTable
from service import request_log
from service.answer import StageTimes
from service.errors import StartupError
from service.hourly_files import HOUR_S, HourlyFiles
from service.metrics import Metrics
from service.release import Release
from service.request_log import DAY_S, QUEUE_SIZE, RequestLog, open_request_log
from service.schemas import RetrieveRequest
from service.settings import RequestLogSettings
from tests.waiting import wait_until

KEY = "0123456789abcdef"
NOON = 1_699_963_200.0  # 2023-11-14T12:00:00Z
TIMES = StageTimes(tokenize=0.0001, queue=0.0002, encode=0.0011, search=0.0004, total=0.0019)
RELEASE = cast("Release", SimpleNamespace(name="a", model_version="m-1", index_version="i-1"))
ADS = AdTable(["ad-0", "ad-1", "ad-2"], {}, {})
HITS = SearchHits(np.array([2, 0]), np.array([0.75, 0.5], np.float32), ADS)


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Counted(Metrics):
    def of(self, result: str) -> float:
        value = self.registry.get_sample_value("hlm_request_log_records_total", {"result": result})
        assert value is not None
        return value


@pytest.fixture
def metrics() -> Counted:
    return Counted()


Open = Callable[..., RequestLog]


@pytest.fixture
def open_log(tmp_path: Path, clock: Clock, metrics: Counted) -> Iterator[Open]:
    opened: list[RequestLog] = []

    def open_one(files: HourlyFiles | None = None, *, share: float = 1.0, **settings: Any) -> RequestLog:
        asked = RequestLogSettings(sample_share=share, path=tmp_path, **settings)
        log = RequestLog(asked, KEY.encode(), files or HourlyFiles(tmp_path, DAY_S, clock), metrics, clock)
        opened.append(log)
        log.start()
        return log

    yield open_one
    for log in opened:
        log.close(30)


def offer(log: RequestLog, query: str = "drill", request_id: str = "r-1", **fields: Any) -> None:
    request = RetrieveRequest(query=query, top_k=2, **fields)
    steps = ("smaller_ef_search",)
    log.offer(request, request_id, RELEASE, HITS, reason="degraded", steps=steps, cached=False, times=TIMES)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(directory.iterdir()) for line in path.read_text().splitlines() if line]


def test_a_record_has_versions_ads_scores_timings_and_the_chance_of_being_here(open_log: Open, tmp_path: Path):
    log = open_log()
    offer(log)
    log.close(30)
    same = hashlib.blake2b(b"drill", digest_size=16, key=hashlib.blake2b(KEY.encode(), digest_size=32).digest())
    assert lines(tmp_path) == [
        {
            "time": "2023-11-14T12:00:00.000Z",
            "request_id": "r-1",
            "release": "a",
            "model_version": "m-1",
            "index_version": "i-1",
            "query_hash": same.hexdigest(),
            "top_k": 2,
            "filters": {},
            "ad_ids": ["ad-2", "ad-0"],
            "scores": [0.75, 0.5],
            "coverage_reason": "degraded",
            "degraded": ["smaller_ef_search"],
            "cached": False,
            "timings_ms": {"tokenize": 0.1, "queue": 0.2, "encode": 1.1, "search": 0.4, "total": 1.9},
            "propensity": 1.0,
        }
    ]


def test_queries_that_differ_in_case_width_and_spaces_alone_have_one_hash(open_log: Open, tmp_path: Path):
    log = open_log()
    for query in ("Cordless  Drill", "cordless drill", "ｃordless\tdrill", "cordless drills"):
        offer(log, query)
    log.close(30)
    hashes = [line["query_hash"] for line in lines(tmp_path)]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


@pytest.mark.parametrize(
    ("query_text", "shown"), [("hash", False), ("none", False), ("text", True)], ids=["hash", "none", "text"]
)
def test_the_text_is_there_only_when_asked_for(open_log: Open, tmp_path: Path, query_text: str, shown: bool):
    log = open_log(query_text=query_text)
    offer(log, "zqxj marker")
    log.close(30)
    (line,) = lines(tmp_path)
    assert ("zqxj marker" in json.dumps(line)) == shown
    assert ("query_hash" in line) == (query_text == "hash")


def test_no_log_is_obeyed(open_log: Open, tmp_path: Path):
    log = open_log()
    offer(log, request_id="r-1", no_log=True)
    offer(log, request_id="r-2")
    log.close(30)
    assert [line["request_id"] for line in lines(tmp_path)] == ["r-2"]


def test_the_sample_is_the_share_and_the_same_for_the_same_ids(open_log: Open, tmp_path: Path, metrics: Counted):
    for _ in range(2):
        log = open_log(share=0.1)
        for number in range(2_000):
            offer(log, request_id=f"r-{number}")
        log.close(30)
    written = [line["request_id"] for line in lines(tmp_path)]
    half = len(written) // 2
    assert written[:half] == written[half:]
    assert 150 < half < 250  # 200 expected; 3.7 standard deviations
    assert metrics.of("written") == len(written)


def test_files_are_of_one_hour_and_for_their_owner_alone(open_log: Open, tmp_path: Path, clock: Clock):
    log = open_log()
    for hour in (0, 0, 1):
        clock.now = NOON + hour * HOUR_S
        offer(log)
        wait_until(lambda hour=hour: (tmp_path / f"requests-2023-11-14T{12 + hour}.ndjson").exists())  # type: ignore[misc]
    log.close(30)
    counts = {path.name: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert sum(counts.values()) == 3
    assert set(counts) == {"requests-2023-11-14T12.ndjson", "requests-2023-11-14T13.ndjson"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_file_is_deleted_when_its_last_record_can_be_as_old_as_the_retention_and_no_other_file_is(
    tmp_path: Path, clock: Clock
):
    old, young, foreign = "requests-2023-11-13T11.ndjson", "requests-2023-11-13T12.ndjson", "requests-old.ndjson"
    for name in (old, young, foreign):
        (tmp_path / name).write_text("{}\n")
    files = HourlyFiles(tmp_path, DAY_S, clock)
    files.expire()
    assert {path.name for path in tmp_path.iterdir()} == {young, foreign}
    clock.now += HOUR_S
    files.expire()
    assert {path.name for path in tmp_path.iterdir()} == {foreign}


def test_old_files_go_also_while_nothing_is_logged(
    open_log: Open, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(request_log, "IDLE_S", 0.001)
    open_log()
    clock.now += HOUR_S
    (tmp_path / "requests-2023-11-01T00.ndjson").write_text("{}\n")
    clock.now += HOUR_S
    wait_until(lambda: not list(tmp_path.iterdir()))


class Refusing(HourlyFiles):
    """A disk that is full until the test makes room."""

    full = True

    def write(self, lines: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(lines)


def test_a_full_disk_is_counted_said_once_and_over_when_it_is_over(
    open_log: Open, tmp_path: Path, clock: Clock, metrics: Counted, caplog: pytest.LogCaptureFixture
):
    files = Refusing(tmp_path, DAY_S, clock)
    log = open_log(files)
    for number in range(3):
        offer(log)
        wait_until(lambda number=number: metrics.of("failed") == number + 1)  # type: ignore[misc]
    files.full = False
    with caplog.at_level("INFO"):
        offer(log)
        log.close(30)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert metrics.of("written") == len(lines(tmp_path)) == 1


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    files = HourlyFiles(tmp_path, DAY_S, clock)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:12]))
    assert files.write(b'{"n": 1}\n{"n": 2}\n') == 1
    monkeypatch.setattr(os, "write", write)
    assert files.write(b'{"n": 3}\n') == 1
    assert files.write(b'{"n": 4}\n') == 1
    (path,) = tmp_path.iterdir()
    assert path.read_text().splitlines() == ['{"n": 1}', '{"n', '{"n": 3}', '{"n": 4}']


class Slow(HourlyFiles):
    """A disk that stands still until the test lets it go on."""

    gate = threading.Event()
    entered = threading.Event()

    def write(self, lines: bytes) -> int:
        self.entered.set()
        assert self.gate.wait(30)
        return super().write(lines)


def test_a_disk_that_stands_still_drops_records_and_holds_up_nobody(
    open_log: Open, tmp_path: Path, clock: Clock, metrics: Counted
):
    files = Slow(tmp_path, DAY_S, clock)
    log = open_log(files)
    offer(log)
    assert files.entered.wait(30)
    for _ in range(QUEUE_SIZE + 7):
        offer(log)
    assert metrics.of("dropped") == 7
    files.gate.set()
    log.close(30)
    assert metrics.of("written") == len(lines(tmp_path)) == QUEUE_SIZE + 1


def test_it_is_off_by_default(metrics: Counted):
    assert open_request_log(RequestLogSettings(), None, metrics) is None


@pytest.mark.parametrize("obstacle", ["a file", "a link"], ids=str)
def test_a_path_that_cannot_be_written_to_refuses_to_start(tmp_path: Path, metrics: Counted, obstacle: str):
    path = tmp_path / "log"
    if obstacle == "a file":
        path.write_text("")
    else:
        path.mkdir()
        (path / "requests-2023-11-14T12.ndjson").symlink_to(tmp_path / "elsewhere")
    settings = RequestLogSettings(sample_share=0.1, path=path)
    with pytest.raises(StartupError, match=r"request_log\.path .*log: cannot be written to"):
        open_request_log(settings, None, metrics, Clock())
