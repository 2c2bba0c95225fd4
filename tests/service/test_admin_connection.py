"""The direct way of a change of one ad, and that its answers cannot be told from those of the general way."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service import admin_connection, connection
from service.ad_changes import SHORT_BODY_BYTES
from service.metrics import Metrics
from service.release import Release
from tests.service.admin_standin import TOKEN, FakeReleases, listening
from tests.service.ads_standin import HeldUp, Served, line
from tests.service.listening import Answer, answers_in, read_answers
from tests.waiting import PATIENCE_S, wait_until

PAUSE, RESUME = b'{"status":"paused"}', b'{"status":"active"}'
BEARER = b"Authorization: Bearer " + TOKEN.encode()
GENERALLY = b"TE: trailers"
"""A field that changes nothing, but with which a request is not plain."""


class Admin:
    """A listener over one release, and the changes that went the direct way to it."""

    def __init__(
        self, url: str, served: Served, held: list[Release], metrics: Metrics, end: Callable[[], None]
    ) -> None:
        self.served, self.held, self.metrics = served, held, metrics
        self.end = end
        """Ends the listener."""
        self.directly: list[str] = []
        host, port = url.removeprefix("http://").rsplit(":", 1)
        self._address = host, int(port)

    def connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=PATIENCE_S)

    def refuses(self) -> bool:
        """Whether nobody listens any more."""
        try:
            self.connect().close()
        except ConnectionError:
            return True
        return False

    def ask(self, *requests: bytes) -> list[Answer]:
        """Send all at once on one connection, and read as many answers."""
        with self.connect() as connection:
            connection.sendall(b"".join(requests))
            return read_answers(connection, len(requests))

    def counted(self) -> dict[tuple[str, ...], float]:
        """Changes by kind and result."""
        return {
            tuple(sample.labels.values()): sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "hlm_ad_changes_total" and sample.value
        }


@contextmanager
def serving(directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Admin]:
    """A listener over one release with the ads `a` and `b`."""
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    metrics = Metrics()
    served = Served(directory / "stable.db", metrics)
    held = [served.release]
    with ExitStack() as listener:
        url = listener.enter_context(listening(FakeReleases(), held, metrics, **settings))
        made = Admin(url, served, held, metrics, listener.close)
        patch = admin_connection.patch_directly

        def counted(changes: Any, ad_id: str, *others: Any) -> None:
            made.directly.append(ad_id)
            patch(changes, ad_id, *others)

        monkeypatch.setattr(admin_connection, "patch_directly", counted)
        made.ask(put(line("a"), line("b")))
        yield made
    served.writer.close()


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    with serving(tmp_path, monkeypatch) as made:
        yield made


def put(*lines: bytes) -> bytes:
    body = b"".join(lines)
    return b"\r\n".join([b"PUT /ads HTTP/1.1", b"Host: x", BEARER, b"Content-Length: %d" % len(body), b"", body])


def change(body: bytes = PAUSE, *fields: bytes, ad_id: bytes = b"a", bearer: bytes = BEARER) -> bytes:
    head = [b"PATCH /ads/%b HTTP/1.1" % ad_id, b"Host: x", bearer, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def nothing(_: Admin) -> None:
    """Leave it as it is."""


def no_release(admin: Admin) -> None:
    admin.held.clear()


def no_record(admin: Admin) -> None:
    admin.held[:] = [replace(admin.held[0], writer=None)]


def closed_record(admin: Admin) -> None:
    admin.served.writer.close()


def broken_memory(admin: Admin) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("internals")

    admin.served.memory.apply = fail  # type: ignore[method-assign]


def broken_writer(admin: Admin) -> None:
    """As the memory that breaks once: what comes after it is refused."""
    broken_memory(admin)
    admin.ask(change(RESUME, GENERALLY, ad_id=b"b"))


CASES: dict[str, tuple[Callable[[Admin], None], bytes, bytes, int, str | None]] = {
    "changed before": (nothing, PAUSE, b"a", 200, None),
    "bid": (nothing, b'{"bid": null}', b"a", 200, None),
    "unknown": (nothing, PAUSE, b"nobody", 404, "unknown_ad"),
    "not JSON": (nothing, b"{", b"a", 400, "invalid_json"),
    "no body": (nothing, b"", b"a", 400, "invalid_json"),
    "nothing to change": (nothing, b"{}", b"a", 422, "invalid_request"),
    "unknown field": (nothing, b'{"title": "x"}', b"a", 422, "invalid_request"),
    "bad bid": (nothing, b'{"bid": -1}', b"a", 422, "invalid_request"),
    "bad and unknown": (nothing, b"{}", b"nobody", 422, "invalid_request"),
    "no release": (no_release, PAUSE, b"a", 503, "not_ready"),
    "no record": (no_record, PAUSE, b"a", 409, "read_only_index"),
    "closed record": (closed_record, PAUSE, b"a", 503, "record_refused"),
    "broken writer": (broken_writer, PAUSE, b"a", 503, "record_refused"),
}


@pytest.mark.parametrize(("prepare", "body", "ad_id", "status", "problem"), CASES.values(), ids=CASES)
def test_an_answer_is_the_same_either_way_and_counted_alike(
    admin: Admin, prepare: Callable[[Admin], None], body: bytes, ad_id: bytes, status: int, problem: str | None
):
    prepare(admin)
    admin.ask(change(body, GENERALLY, ad_id=ad_id))  # so that it is as it is to be
    before = admin.counted()
    [general] = admin.ask(change(body, GENERALLY, ad_id=ad_id))
    between = admin.counted()
    assert admin.directly == []
    [direct] = admin.ask(change(body, ad_id=ad_id))
    assert admin.directly == [ad_id.decode()]
    assert (direct.status, direct.body) == (general.status, general.body)
    assert direct.headers | {"date": ""} == general.headers | {"date": ""}
    assert (direct.status, direct.document.get("type")) == (status, problem)
    assert _added(between, admin.counted()) == _added(before, between)


def _added(before: dict[tuple[str, ...], float], after: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key)}


@pytest.mark.parametrize("fields", [(), (GENERALLY,)], ids=["directly", "generally"])
def test_a_fault_of_ours_tells_no_internals_and_ends_the_connection(admin: Admin, fields: tuple[bytes, ...]):
    broken_memory(admin)
    with admin.connect() as connection:
        connection.sendall(change(PAUSE, *fields))
        [answer] = answers_in(b"".join(iter(lambda: connection.recv(65_536), b"")))
    assert (answer.status, answer.document["type"], answer.document["detail"]) == (
        *(500, "internal_error"),
        "ZeroDivisionError",
    )
    assert answer.headers["connection"] == "close"
    assert len(admin.directly) == (not fields)


def test_what_follows_a_fault_does_not_reset_its_answer(admin: Admin):
    broken_memory(admin)
    with admin.connect() as client:
        client.sendall(change(PAUSE) * 20_000)
        [answer] = answers_in(b"".join(iter(lambda: client.recv(65_536), b"")))
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert len(admin.directly) == 1


# --- clients that go, or do not go on -------------------------------------------------------------------------------


def test_a_change_is_made_whose_client_has_gone_meanwhile(admin: Admin):
    held_up = HeldUp(admin.served.memory)
    with admin.connect() as client:
        client.sendall(change(PAUSE))
        assert held_up.begun.wait(PATIENCE_S)
    held_up.may_end.set()
    assert admin.ask(change(RESUME, ad_id=b"b"))[0].document["sequence"] == 4
    assert admin.directly == ["a", "b"]
    assert admin.served.memory.statuses == {"a": "paused", "b": "active"}


def test_a_listener_that_ends_answers_the_change_in_progress(admin: Admin):
    held_up = HeldUp(admin.served.memory)
    with admin.connect() as client:
        client.sendall(change(PAUSE))
        assert held_up.begun.wait(PATIENCE_S)
        ending = threading.Thread(target=admin.end)
        ending.start()
        wait_until(admin.refuses)
        held_up.may_end.set()
        [answer] = answers_in(b"".join(iter(lambda: client.recv(65_536), b"")))
        ending.join(PATIENCE_S)
    assert (answer.status, answer.document["applied"]) == (200, 1)


def test_a_kept_connection_that_is_idle_for_long_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(tmp_path, monkeypatch, keep_alive_timeout_ms=50) as admin, admin.connect() as client:
        client.sendall(change(PAUSE))
        [answer] = answers_in(b"".join(iter(lambda: client.recv(65_536), b"")))
    assert (answer.status, admin.directly) == (200, ["a"])


def test_a_second_header_that_drips_in_is_given_up(admin: Admin, monkeypatch: pytest.MonkeyPatch):
    with admin.connect() as client:
        client.sendall(change(PAUSE))
        assert read_answers(client, 1)[0].status == 200
        monkeypatch.setattr(connection, "HEADER_TIMEOUT_S", 0.05)
        client.sendall(change(PAUSE)[:40])
        assert client.recv(1) == b""
    assert admin.directly == ["a"]


def test_changes_in_a_row_are_made_and_answered_in_their_order(admin: Admin):
    answers = admin.ask(change(PAUSE), change(RESUME), change(PAUSE, GENERALLY), change(b"{}"), change(RESUME))
    assert [answer.document.get("sequence") for answer in answers] == [3, 4, 5, None, 6]
    assert len(admin.directly) == 2  # the parser keeps what came with the one that it was given
    assert admin.served.memory.statuses["a"] == "active"


def test_a_body_that_comes_after_its_header_is_taken_directly_too(admin: Admin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "REST_TIMEOUT_S", PATIENCE_S)
    head, _, body = change(PAUSE).partition(b"\r\n\r\n")
    with admin.connect() as client:
        for part in (head + b"\r\n\r\n", body):
            client.sendall(part)
        [answer] = read_answers(client, 1)
    assert answer.document["applied"] == 1
    assert admin.directly == ["a"]


@pytest.mark.parametrize(
    "bearer",
    [
        b"X: y",
        b"Authorization: Bearer wrong-wrong-wrong",
        BEARER + b"\r\n" + BEARER,
        BEARER.replace(b"Bearer", b"Basic"),
    ],
    ids=["none", "wrong", "two", "another scheme"],
)
def test_without_the_token_nothing_goes_the_direct_way(admin: Admin, bearer: bytes):
    with admin.connect() as connection:
        connection.sendall(change(PAUSE, bearer=bearer) + change(PAUSE))
        [answer] = answers_in(b"".join(iter(lambda: connection.recv(65_536), b"")))
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert admin.directly == []
    assert admin.served.memory.statuses["a"] is None


@pytest.mark.parametrize(
    "request_bytes",
    [
        change(PAUSE, ad_id=b"%61"),
        change(PAUSE, ad_id=b"a?x=1"),
        change(PAUSE, b"Connection: close"),
        change(PAUSE + b" " * SHORT_BODY_BYTES),
        change(PAUSE).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        change(PAUSE)
        .replace(b"Content-Length: 19", b"Transfer-Encoding: chunked")
        .replace(PAUSE, b"13\r\n%b\r\n0\r\n\r\n" % PAUSE),
    ],
    ids=["encoded id", "query string", "close", "long", "HTTP/1.0", "chunked"],
)
def test_what_is_not_plain_goes_the_general_way_to_the_same_answer(admin: Admin, request_bytes: bytes):
    [answer] = admin.ask(request_bytes)
    assert (answer.document["applied"], admin.served.memory.statuses["a"]) == (1, "paused")
    assert admin.directly == []


@pytest.mark.parametrize("ad_id", ["a.b", "..", "a:b@c~d_e-f", "x" * 256])
def test_an_id_that_needs_no_encoding_is_taken_as_it_is(admin: Admin, ad_id: str):
    admin.ask(put(line(ad_id)))
    [answer] = admin.ask(change(PAUSE, ad_id=ad_id.encode()))
    assert (answer.document["applied"], admin.directly) == (1, [ad_id])
    assert admin.served.memory.statuses[ad_id] == "paused"


def test_other_releases_follow_a_change_that_went_the_direct_way(admin: Admin, tmp_path: Path):
    like = Served(tmp_path / "like.db", admin.metrics)
    admin.held.append(like.release)
    admin.ask(put(line("a"), line("b")))
    assert admin.ask(change(PAUSE))[0].document["applied"] == 1
    assert admin.directly == ["a"]
    assert like.memory.statuses["a"] == "paused"
    like.writer.close()
    [refused] = admin.ask(change(RESUME))
    assert (refused.status, refused.document["type"]) == (503, "record_refused")
    assert re.search(r"like\.db: the record is closed", refused.document["detail"])
