"""Changes of ads over the admin listener: a real one, over a real record and writer, and an index that is a dict."""

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.changes import Delete
from index.record import Record
from service.ad_changes import ADS_A_JOB, AdChanges
from service.low_lane import LowLane
from service.metrics import Metrics
from service.release import Release
from tests.index.records import contents
from tests.index.support import unit_vectors
from tests.service.admin_standin import TOKEN, FakeReleases, listening
from tests.service.ads_standin import HeldUp, Served, line
from tests.waiting import PATIENCE_S, wait_until

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PAUSED = {"status": "paused"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def served(tmp_path: Path, metrics: Metrics) -> Iterator[Served]:
    made = Served(tmp_path / "stable.db", metrics)
    yield made
    made.writer.close()


@pytest.fixture
def held(served: Served) -> list[Release]:
    """The releases that are loaded; a test may change them."""
    return [served.release]


@pytest.fixture
def admin(held: list[Release], metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    with (
        listening(FakeReleases(), held, metrics) as url,
        httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client,
    ):
        yield client


def put(admin: httpx.Client, *lines: bytes) -> dict[str, Any]:
    answer = admin.put("/ads", content=b"".join(lines))
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def done(applied: int, sequence: int) -> dict[str, Any]:
    return {"applied": applied, "failed": [], "failed_count": 0, "sequence": sequence}


def test_ads_are_written_with_text_or_embedding(admin: httpx.Client, served: Served):
    vector = unit_vectors(1)[0]
    assert put(admin, line("a"), line("b", embedding=vector.tolist(), status="paused")) == done(2, 2)
    assert served.memory.statuses == {"a": None, "b": "paused"}
    found = contents(served.path)
    expected = served.embedder.encode([served.embedder.tokenize("Title of a")])[0]
    np.testing.assert_allclose(np.frombuffer(found["a"][1], np.float32), expected, atol=1e-6)
    np.testing.assert_allclose(np.frombuffer(found["b"][1], np.float32), vector, atol=1e-6)


def test_the_last_line_needs_no_end_and_windows_may_have_written_them(admin: httpx.Client, served: Served):
    assert put(admin, b"\xef\xbb\xbf" + line("a").replace(b"\n", b"\r\n"), line("b").rstrip())["applied"] == 2
    assert served.ads() == {"a", "b"}


def test_nothing_in_gives_nothing_out(admin: httpx.Client):
    assert put(admin) == done(0, 0)


def test_a_bad_line_is_named_with_its_reason_and_harms_no_other(admin: httpx.Client, served: Served):
    answer = put(
        admin,
        line("a"),
        b"{\n",
        line("c", bid=-1),
        b"x" * (1 << 20) + b"y\n",
        b"\n",
        line("f", embedding=[1.0]),
        line("g"),
    )
    reasons = {failure["line"]: failure["reason"] for failure in answer["failed"]}
    assert reasons == {
        2: "not JSON",
        3: "bid: input should be greater than or equal to 0",
        4: "longer than 1048576 bytes",
        5: "not JSON",
        6: "embedding: not of dim 32",
    }
    assert (answer["applied"], answer["failed_count"], answer["sequence"]) == (2, 5, 2)
    assert served.ads() == {"a", "g"}


def test_more_failures_than_an_answer_names_are_counted(admin: httpx.Client):
    answer = put(admin, b"?\n" * 1500, line("a"))
    assert (len(answer["failed"]), answer["failed_count"], answer["applied"]) == (1000, 1500, 1)
    assert [failure["line"] for failure in answer["failed"]] == list(range(1, 1001))


def test_the_same_ad_twice_is_as_in_its_last_line(admin: httpx.Client, served: Served):
    assert put(admin, line("a", bid=1), line("a", bid=2)) == done(2, 2)
    assert contents(served.path)["a"][0].bid == 2


def test_ads_that_are_written_again_change_nothing_and_are_not_embedded_again(admin: httpx.Client, served: Served):
    lines = [line(f"ad-{number}") for number in range(30)]
    assert put(admin, *lines) == done(30, 30)
    embedded = served.embedder.encoded
    assert put(admin, *lines) == done(30, 30)
    assert put(admin, line("ad-0", bid=2)) == done(1, 31)
    assert served.embedder.encoded == embedded
    put(admin, line("ad-0", title="Another"))
    assert served.embedder.encoded == embedded + 1


@pytest.mark.parametrize(("ads", "jobs"), [(1, 1), (ADS_A_JOB, 1), (ADS_A_JOB + 1, 3)])
def test_few_ads_are_read_looked_up_and_embedded_in_one_job(
    admin: httpx.Client, served: Served, metrics: Metrics, ads: int, jobs: int
):
    put(admin, *(line(f"ad-{number}") for number in range(ads)))
    assert served.embedder.encoded == ads
    assert metrics.registry.get_sample_value("hlm_low_lane_jobs_total", {"result": "done"}) == jobs


@pytest.mark.parametrize(
    ("embedded_by", "said"), [(None, "this index was given embeddings"), ("other-1", "embedded by other-1")]
)
def test_only_the_encoder_that_embedded_the_index_embeds_its_ads(
    tmp_path: Path, metrics: Metrics, held: list[Release], admin: httpx.Client, embedded_by: str | None, said: str
):
    other = Served(tmp_path / "other.db", metrics, embedded_by=embedded_by)
    held[:] = [other.release]
    answer = put(admin, line("a"), line("b", embedding=unit_vectors(1)[0].tolist()))
    assert (answer["applied"], [failure["line"] for failure in answer["failed"]]) == (1, [1])
    assert said in answer["failed"][0]["reason"]
    other.writer.close()


def test_a_body_of_many_parts_is_recorded_as_it_comes(admin: httpx.Client, served: Served):
    def parts() -> Iterator[bytes]:
        for number in range(1000):
            whole = line(f"ad-{number}", description="x" * 500)
            yield whole[:100]
            yield whole[100:]
        wait_until(lambda: served.record.sequence >= 600)  # although the body has not ended
        yield line("last")

    answer = admin.put("/ads", content=parts())
    assert answer.json() == done(1001, 1001)


def test_a_body_that_is_too_large_is_refused_before_it_comes(admin: httpx.Client):
    request = f"PUT /ads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {300 << 20}\r\n\r\n"
    with socket.create_connection((admin.base_url.host, admin.base_url.port), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_breaks_off_keeps_what_was_recorded(admin: httpx.Client, served: Served):
    head = f"PUT /ads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection((admin.base_url.host, admin.base_url.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"".join(line(f"ad-{number}") for number in range(450)))
        wait_until(lambda: served.record.sequence >= 400)
    assert admin.get("/ads/ad-399").status_code == 200


def test_a_slow_body_is_given_up_with_what_was_done(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.ndjson.READ_TIMEOUT_S", 0.3)
    head = f"PUT /ads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection((admin.base_url.host, admin.base_url.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"".join(line(f"ad-{number}") for number in range(250)))
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (document["type"], document["applied"], document["sequence"]) == ("slow_body", 200, 200)


def test_a_full_disk_is_507_with_what_was_done_and_the_next_change_is_made(admin: httpx.Client, served: Served):
    [pages] = served.record._db.execute("PRAGMA page_count").fetchone()
    served.record._db.execute(f"PRAGMA max_page_count = {pages + 80}")
    answer = admin.put("/ads", content=b"".join(line(f"ad-{number}", description="x" * 2000) for number in range(900)))
    assert (answer.status_code, answer.json()["type"]) == (507, "storage_full")
    applied = answer.json()["applied"]
    assert 0 < applied < 900
    assert applied == answer.json()["sequence"] == len(served.ads()) == len(served.memory.statuses)
    assert admin.patch("/ads/ad-0", json=PAUSED).status_code == 200


def test_patches_and_deletions(admin: httpx.Client, served: Served):
    put(admin, line("a", bid=1), line("b"))
    assert admin.patch("/ads/a", json=PAUSED).json() == done(1, 3)
    assert admin.patch("/ads/a", json=PAUSED).json() == done(1, 3)
    assert admin.patch("/ads/a", json={"bid": None}).json() == done(1, 4)
    assert admin.delete("/ads/b").json() == done(1, 5)
    assert admin.delete("/ads/b").json() == done(0, 5)
    assert served.memory.statuses == {"a": "paused", "b": None}
    assert contents(served.path)["a"][0].bid is None


def test_a_campaign_may_have_all_the_keywords_that_it_can(admin: httpx.Client):
    keywords = [f'"{number} {"x" * 500}"' for number in range(20_000)]
    assert admin.patch("/campaigns/c", json={"negative_keywords": keywords}).json() == done(1, 1)
    [change] = admin.get("/changes").json()["changes"]
    assert change["campaign"]["negative_keywords"] == keywords
    answer = admin.patch("/campaigns/c", json={"negative_keywords": [*keywords, "one more"]})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid_request")


def test_an_unknown_ad_is_404(admin: httpx.Client):
    for answer in (admin.patch("/ads/nobody", json=PAUSED), admin.get("/ads/nobody")):
        assert (answer.status_code, answer.json()["type"]) == (404, "unknown_ad")
        assert "'nobody'" in answer.json()["detail"]


@pytest.mark.parametrize("ad_id", ["a/b", "ü \U0001f600", "a?b#c%2F", "changes", "a b", "..a"])
def test_any_id_can_be_named(admin: httpx.Client, served: Served, ad_id: str):
    from urllib.parse import quote

    put(admin, line(ad_id))
    path = f"/ads/{quote(ad_id, safe='')}"
    assert admin.get(path).json()["ad_id"] == ad_id
    assert admin.patch(path, json=PAUSED).json()["applied"] == 1
    assert admin.delete(path).json()["applied"] == 1
    assert served.ads() == set()


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/ads/a", b"{", 400, "invalid_json"),
        ("/ads/a", b"{}", 422, "invalid_request"),
        ("/ads/a", b'{"title": "x"}', 422, "invalid_request"),
        ("/ads/a", b'{"bid": -1}', 422, "invalid_request"),
        ("/campaigns/c", b'{"bid": 1}', 422, "invalid_request"),
        ("/campaigns/" + "c" * 257, b'{"budget": "exhausted"}', 422, "invalid_request"),
        ("/campaigns/", b'{"budget": "exhausted"}', 422, "invalid_request"),
        ("/ads/a", b" " * (17 << 20), 413, "body_too_large"),
        ("/ads/a", b'{"bid": 1, "x": "' + b"y" * 5_000 + b'"}', 422, "invalid_request"),
    ],
)
def test_a_bad_patch_is_a_problem_document(admin: httpx.Client, path: str, body: bytes, status: int, problem: str):
    answer = admin.patch(path, content=body)
    assert (answer.status_code, answer.json()["type"]) == (status, problem)


def test_an_ad_is_shown_as_it_was_written_less_its_embedding(admin: httpx.Client):
    put(admin, line("a", bid=1, colour="red", embedding=unit_vectors(1)[0].tolist()))
    assert admin.get("/ads/a").json() == {
        "sequence": 1,
        "ad_id": "a",
        "ad": {"ad_id": "a", "title": "Title of a", "bid": 1.0, "attrs": {"colour": "red"}},
    }


def test_changes_are_told_in_their_order_and_can_be_followed(admin: httpx.Client):
    put(admin, line("a"), line("b"))
    admin.patch("/campaigns/c", json={"budget": "exhausted"})
    admin.delete("/ads/a")
    first = admin.get("/changes", params={"since": 0, "limit": 2}).json()
    assert ([change["sequence"] for change in first["changes"]], first["last"]) == ([2, 3], 4)
    assert first["changes"][1] == {
        "sequence": 3,
        "campaign_id": "c",
        "campaign": {"campaign_id": "c", "budget": "exhausted", "pass_through_rate": 1.0},
    }
    rest = admin.get("/changes", params={"since": first["sequence"]}).json()
    assert rest == {"changes": [{"sequence": 4, "ad_id": "a", "ad": None}], "sequence": 4, "last": 4, "complete": True}
    nothing = {"changes": [], "sequence": 4, "last": 4, "complete": True}
    assert admin.get("/changes", params={"since": 4}).json() == nothing


def test_who_asks_for_changes_from_before_forgotten_deletions_is_told(admin: httpx.Client, served: Served):
    put(admin, line("a"))
    admin.delete("/ads/a")
    put(admin, line("b"))
    served.writer.close()
    with contextlib.closing(Record(served.path)) as record, record.transaction() as transaction:
        transaction.forget_deletions(0, 3)
    complete = {since: admin.get("/changes", params={"since": since}).json()["complete"] for since in (0, 2, 3)}
    assert complete == {0: False, 2: False, 3: True}


def test_who_has_seen_changes_that_a_restored_record_lacks_is_told(admin: httpx.Client):
    put(admin, line("a"))
    answer = admin.get("/changes", params={"since": 99}).json()
    assert answer == {"changes": [], "sequence": 1, "last": 1, "complete": False}


def test_who_waits_for_a_change_gets_it_when_it_comes(admin: httpx.Client):
    def follow() -> None:
        answers.append(
            httpx.get(admin.base_url.join("/changes?since=0&wait_ms=30000"), headers=HEADERS, timeout=60).json()
        )

    answers: list[dict[str, Any]] = []
    follower = threading.Thread(target=follow)
    follower.start()
    put(admin, line("a"))
    follower.join(60)
    assert [change["ad_id"] for change in answers[0]["changes"]] == ["a"]


@pytest.mark.parametrize("query", ["since=-1", "since=x", "limit=0", "limit=1001", "wait_ms=30001", "sinc=1"])
def test_a_bad_question_for_changes_is_422(admin: httpx.Client, query: str):
    answer = admin.get(f"/changes?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid_request")
    assert query.partition("=")[0] in answer.json()["detail"]


ALL = [
    ("PUT", "/ads"),
    ("DELETE", "/ads/a"),
    ("PATCH", "/ads/a"),
    ("GET", "/ads/a"),
    ("PATCH", "/campaigns/c"),
    ("GET", "/changes"),
]


@pytest.mark.parametrize(("method", "path"), ALL)
def test_an_index_without_a_record_says_how_to_give_it_one(
    admin: httpx.Client, held: list[Release], method: str, path: str
):
    from dataclasses import replace

    held[:] = [replace(held[0], writer=None)]
    answer = admin.request(method, path, json=PAUSED)
    assert (answer.status_code, answer.json()["type"]) == (409, "read_only_index")
    assert "`release.record`" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path"), ALL)
def test_before_a_release_is_loaded_nothing_is_changed(
    admin: httpx.Client, held: list[Release], method: str, path: str
):
    held.clear()
    answer = admin.request(method, path, json=PAUSED)
    assert (answer.status_code, answer.json()["type"]) == (503, "not_ready")


def test_a_record_that_is_closed_refuses_and_says_that_it_may_be_tried_again(
    admin: httpx.Client, served: Served, caplog: pytest.LogCaptureFixture
):
    served.writer.close()
    answer = admin.patch("/ads/a", json=PAUSED)
    assert (answer.status_code, answer.json()["type"]) == (503, "record_refused")
    assert answer.headers["retry-after"] == "1"
    assert "changes of ads could not be recorded: " in caplog.text


def test_releases_with_other_records_follow_as_far_as_they_can(
    tmp_path: Path, metrics: Metrics, held: list[Release], admin: httpx.Client, served: Served
):
    like = Served(tmp_path / "like.db", metrics)
    unlike = Served(tmp_path / "unlike.db", metrics, teacher="another")
    held += [like.release, unlike.release, served.release]
    put(admin, line("a"), line("b"))
    assert (served.ads(), like.ads(), unlike.ads()) == ({"a", "b"}, {"a", "b"}, set())
    assert contents(like.path)["a"][1] == contents(served.path)["a"][1]
    assert admin.patch("/ads/a", json=PAUSED).json()["applied"] == 1
    assert admin.delete("/ads/b").json()["applied"] == 1
    assert like.memory.statuses == {"a": "paused", "b": None}
    like.writer.close()
    unlike.writer.close()


def test_what_is_done_is_counted(admin: httpx.Client, metrics: Metrics, served: Served):
    put(admin, line("a"), line("a"), b"?\n")
    admin.patch("/ads/a", json=PAUSED)
    admin.patch("/ads/b", json=PAUSED)
    admin.patch("/ads/a", json={})
    served.writer.close()
    admin.delete("/ads/a")
    value = metrics.registry.get_sample_value
    counted = {
        (kind, result): value("hlm_ad_changes_total", {"kind": kind, "result": result})
        for kind, result in itertools.product(
            ("upsert", "ad_patch", "delete"), ("applied", "unchanged", "unknown", "invalid", "refused")
        )
    }
    assert {key: count for key, count in counted.items() if count} == {
        ("upsert", "applied"): 1,
        ("upsert", "unchanged"): 1,
        ("upsert", "invalid"): 1,
        ("ad_patch", "applied"): 1,
        ("ad_patch", "unknown"): 1,
        ("ad_patch", "invalid"): 1,
        ("delete", "refused"): 1,
    }
    assert value("hlm_record_sequence") == 2
    assert value("hlm_record_commit_seconds_count") == value("hlm_freshness_seconds_count") == 3


def test_a_writer_goes_on_after_the_loop_that_waited_for_it_has_ended(
    served: Served, metrics: Metrics, caplog: pytest.LogCaptureFixture
):
    held_up = HeldUp(served.memory)
    changes = AdChanges(lambda: [served.release], LowLane(metrics.lane), metrics.ads)

    async def begin() -> None:
        changes.submit(Delete("a"), pytest.fail)

    asyncio.run(begin())
    assert held_up.begun.wait(PATIENCE_S)
    held_up.may_end.set()
    assert served.writer.submit([Delete("b")]).result(PATIENCE_S).unknown == (0,)
    assert caplog.messages == []
