"""The writer: order, shared commits, what is answered when the disk or the index refuses, and kills at any moment."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.changes import AdPatch, AdState, Delete, PatchAd, State
from index.errors import RecordError, RecordFullError
from index.record import Record
from index.writer import ENOUGH_TO_SHARE, MOST_TOGETHER, SHARE_S, AdWriter, Commit, Outcome
from tests.index.records import contents, empty_record, upsert
from tests.waiting import wait_until

PAUSE = AdPatch(status="paused")
PATIENCE_S = 30.0


class FakeIndex:
    """Keeps the ads that there are; its writer can be held up, or made to fail."""

    def __init__(self) -> None:
        self.ads: dict[str, Any] = {}
        self.sequences: list[int] = []
        self.may_apply = threading.Event()
        self.may_apply.set()
        self.applying = threading.Semaphore(0)
        self.fault: Exception | None = None

    def apply(self, states: Sequence[State]) -> None:
        self.applying.release()
        assert self.may_apply.wait(PATIENCE_S)
        if self.fault:
            raise self.fault
        for state in states:
            assert isinstance(state, AdState)
            self.sequences.append(state.sequence)
            self.ads[state.ad_id] = state.ad and state.ad.status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return empty_record(tmp_path / "record.db")


@pytest.fixture
def target() -> FakeIndex:
    return FakeIndex()


@pytest.fixture
def commits() -> list[Commit]:
    return []


@pytest.fixture
def writer(path: Path, target: FakeIndex, commits: list[Commit]):
    started = AdWriter(Record(path), target, commits.append)
    yield started
    target.may_apply.set()
    started.close()


def result(writer: AdWriter, *changes: Any) -> Outcome:
    return writer.submit(changes).result(PATIENCE_S)


def test_what_is_answered_is_recorded_and_in_memory(path: Path, writer: AdWriter, target: FakeIndex):
    assert result(writer, upsert("a"), upsert("b")) == Outcome(2, (), 2)
    assert contents(path).keys() == target.ads.keys() == {"a", "b"}
    assert result(writer, PatchAd("a", PAUSE), Delete("b")) == Outcome(2, (), 4)
    assert target.ads == {"a": "paused", "b": None}
    assert contents(path)["a"][0].status == "paused"


def test_unknown_ads_are_named_by_position_and_keep_nothing_else_from_being_made(writer: AdWriter, target: FakeIndex):
    outcome = result(writer, PatchAd("x", PAUSE), upsert("a"), Delete("y"), PatchAd("a", PAUSE))
    assert outcome == Outcome(2, (0, 2), 2)
    assert target.ads == {"a": "paused"}


def test_a_change_that_is_repeated_is_answered_alike_and_made_once(writer: AdWriter, commits: list[Commit]):
    assert result(writer, upsert("a")) == result(writer, upsert("a")) == Outcome(1, (), 1)
    assert [dict(commit.results) for commit in commits] == [{("Upsert", "applied"): 1}, {("Upsert", "unchanged"): 1}]


def test_what_waits_shares_the_next_commit_in_its_order(writer: AdWriter, target: FakeIndex, commits: list[Commit]):
    target.may_apply.clear()
    first = writer.submit([upsert("a")])
    assert target.applying.acquire(timeout=PATIENCE_S)
    waiting = [writer.submit([PatchAd("a", AdPatch(status=str(number)))]) for number in range(50)]
    assert not first.done()
    target.may_apply.set()
    assert [future.result(PATIENCE_S).applied for future in waiting] == [1] * 50
    assert target.ads["a"] == "49"
    assert target.sequences == sorted(target.sequences)
    assert [commit.sequence for commit in commits] == [1, 51]


def test_who_gave_up_before_the_change_was_made_has_none(path: Path, writer: AdWriter, target: FakeIndex):
    target.may_apply.clear()
    first = writer.submit([upsert("a")])
    assert target.applying.acquire(timeout=PATIENCE_S)
    given_up = writer.submit([upsert("b")])
    assert given_up.cancel()
    assert not first.cancel()
    target.may_apply.set()
    assert result(writer, upsert("c")) == Outcome(1, (), 2)
    assert contents(path).keys() == {"a", "c"}


def test_a_transaction_is_bounded(writer: AdWriter, target: FakeIndex, commits: list[Commit]):
    target.may_apply.clear()
    writer.submit([upsert("first")])
    assert target.applying.acquire(timeout=PATIENCE_S)
    size = MOST_TOGETHER // 2
    waiting = [writer.submit([upsert(f"{part}-{number}") for number in range(size)]) for part in range(5)]
    target.may_apply.set()
    assert [future.result(PATIENCE_S).applied for future in waiting] == [size] * 5
    assert [commit.sequence for commit in commits] == [1, 1 + 2 * size, 1 + 4 * size, 1 + 5 * size]


def test_a_full_disk_is_answered_to_all_that_shared_the_commit_and_the_writer_goes_on(path: Path, target: FakeIndex):
    record = Record(path)
    [pages] = record._db.execute("PRAGMA page_count").fetchone()
    record._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    writer = AdWriter(record, target)
    many = [upsert(f"ad-{number}", description="x" * 2000) for number in range(100)]
    with pytest.raises(RecordFullError, match="no room on the disk"):
        writer.submit(many).result(PATIENCE_S)
    assert (target.ads, contents(path)) == ({}, {})
    assert result(writer, upsert("a")) == Outcome(1, (), 1)
    writer.close()


def test_a_fault_in_memory_ends_all_writing_since_searches_would_not_see_it(
    path: Path, writer: AdWriter, target: FakeIndex
):
    target.fault = ZeroDivisionError("internals")
    with pytest.raises(ZeroDivisionError):
        writer.submit([upsert("a")]).result(PATIENCE_S)
    target.fault = None
    with pytest.raises(RecordError, match=r"record\.db: recorded changes could not be made in memory; restart"):
        writer.submit([upsert("b")]).result(PATIENCE_S)
    assert contents(path).keys() == {"a"}


def test_a_change_that_is_a_fault_of_ours_harms_no_other(path: Path, writer: AdWriter, target: FakeIndex):
    target.may_apply.clear()
    first = writer.submit([upsert("a")])
    assert target.applying.acquire(timeout=PATIENCE_S)
    waiting = [
        writer.submit([upsert("b")]),
        writer.submit([replace(upsert("x"), embedding=None)]),
        writer.submit([upsert("c")]),
    ]
    target.may_apply.set()
    assert first.result(PATIENCE_S).applied == waiting[0].result(PATIENCE_S).applied == 1
    with pytest.raises(AttributeError):
        waiting[1].result(PATIENCE_S)
    assert waiting[2].result(PATIENCE_S).sequence == 3
    assert contents(path).keys() == target.ads.keys() == {"a", "b", "c"}


def test_closing_makes_what_is_queued_and_refuses_what_comes_after(path: Path, writer: AdWriter, target: FakeIndex):
    target.may_apply.clear()
    futures = [writer.submit([upsert(f"ad-{number}")]) for number in range(10)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    target.may_apply.set()
    closing.join(PATIENCE_S)
    assert [future.result(PATIENCE_S).applied for future in futures] == [1] * 10
    with pytest.raises(RecordError, match="the record is closed"):
        writer.submit([upsert("late")]).result(PATIENCE_S)
    assert len(contents(path)) == 10
    Record(path).close()


def test_many_threads_are_each_answered_for_their_own(path: Path, writer: AdWriter):
    def work(name: str) -> None:
        for number in range(20):
            outcome = result(writer, upsert(f"{name}-{number}"), PatchAd("nobody", PAUSE))
            outcomes.append(outcome)

    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert {(outcome.applied, outcome.unknown) for outcome in outcomes} == {(1, (1,))}
    assert len(contents(path)) == len(outcomes) == 160


class Requests:
    """Says whether requests are being answered; a pause lets others submit their changes."""

    def __init__(self, busy: bool) -> None:
        self.busy = busy
        self.pauses: list[float] = []
        self.meanwhile: Any = lambda: None

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.meanwhile()


@pytest.fixture
def requests() -> Requests:
    return Requests(busy=True)


@pytest.fixture
def polite(path: Path, target: FakeIndex, commits: list[Commit], requests: Requests):
    """A writer that gives way to requests."""
    started = AdWriter(Record(path), target, commits.append, is_busy=lambda: requests.busy, pause=requests.pause)
    yield started
    started.close()


def test_while_requests_are_answered_changes_share_a_commit(
    polite: AdWriter, requests: Requests, commits: list[Commit]
):
    later: list[Any] = []
    requests.meanwhile = lambda: later.extend(polite.submit([upsert(f"later-{number}")]) for number in range(3))
    first = polite.submit([upsert("first")])
    assert first.result(PATIENCE_S) == later[-1].result(PATIENCE_S) == Outcome(1, (), 4)
    assert (requests.pauses, len(commits)) == ([SHARE_S], 1)


def test_at_rest_a_change_is_made_at_once(polite: AdWriter, requests: Requests):
    requests.busy = False
    assert result(polite, upsert("a")) == Outcome(1, (), 1)
    assert requests.pauses == []


def test_many_changes_of_one_caller_wait_for_no_others(polite: AdWriter, requests: Requests):
    assert result(polite, *(upsert(str(number)) for number in range(ENOUGH_TO_SHARE))).applied == ENOUGH_TO_SHARE
    assert requests.pauses == []


def hold_up(polite: AdWriter, target: FakeIndex) -> None:
    """Have it make a change that is not over before `may_apply` is set."""
    target.may_apply.clear()
    polite.submit([upsert("held")])
    assert target.applying.acquire(timeout=PATIENCE_S)


def test_many_callers_that_wait_already_wait_for_no_others(polite: AdWriter, target: FakeIndex, requests: Requests):
    requests.busy = False
    hold_up(polite, target)
    requests.busy = True
    waiting = [polite.submit([upsert(str(number))]) for number in range(ENOUGH_TO_SHARE)]
    target.may_apply.set()
    assert {future.result(PATIENCE_S) for future in waiting} == {Outcome(1, (), ENOUGH_TO_SHARE + 1)}
    assert requests.pauses == []


def test_the_last_change_of_all_waits_for_no_others(polite: AdWriter, target: FakeIndex, requests: Requests):
    requests.busy = False
    hold_up(polite, target)
    requests.busy = True
    last = polite.submit([upsert("last")])
    closing = threading.Thread(target=polite.close)
    closing.start()
    wait_until(lambda: polite._closed)
    target.may_apply.set()
    assert last.result(PATIENCE_S).applied == 1
    closing.join(PATIENCE_S)
    assert requests.pauses == []


def test_what_ends_while_others_are_waited_for_is_made(path: Path, target: FakeIndex, requests: Requests):
    writer = AdWriter(Record(path), target, is_busy=lambda: True, pause=requests.pause)
    closing = threading.Thread(target=writer.close)
    requests.meanwhile = closing.start
    assert result(writer, upsert("a")).applied == 1
    closing.join(PATIENCE_S)
    assert contents(path).keys() == {"a"}


def test_its_readers_let_go_of_the_record_before_it_does(path: Path, writer: AdWriter):
    result(writer, upsert("a"))
    with writer.readers.reader() as reader:
        assert reader.find("a") is not None
    writer.close()
    assert not path.with_name(f"{path.name}-wal").exists()
