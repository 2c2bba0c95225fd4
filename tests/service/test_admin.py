"""The admin listener: off without a token, closed to whoever lacks it, and clear about what it refuses."""

import ast
import asyncio
import hmac
import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.admin import admin_listener
from service.app import create_app
from service.errors import StartupError
from service.service import Service
from service.settings import ReleaseSettings, ServerSettings, load_settings
from tests.service.admin_standin import TOKEN, FakeReleases, listening, no_changes
from tests.waiting import wait_until

RELEASE = {"name": "second", "encoder": "encoders/e2", "index": "indexes/i2"}
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> FakeReleases:
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    return FakeReleases()


@pytest.fixture
def admin(releases: FakeReleases) -> Iterator[httpx.Client]:
    with listening(releases) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def open_and_close(**settings: Any) -> str | None:
    """Run the listener for no longer than it takes to start."""

    async def run() -> str | None:
        async with admin_listener(ServerSettings(admin_port=0, **settings), FakeReleases(), no_changes()) as url:
            return url

    return asyncio.run(run())


@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["unset", "empty", "blank"])
def test_without_a_token_it_is_off_and_the_log_says_so_once(
    value: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("HLM_ADMIN_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("HLM_ADMIN_TOKEN", value)
    caplog.set_level(logging.INFO)
    assert open_and_close() is None
    assert [record.message for record in caplog.records if "admin" in record.message] == [
        "the admin listener is off: HLM_ADMIN_TOKEN is not set"
    ]


@pytest.mark.parametrize(
    "token", ["0123456789abcde", "0123456789 abcdef", "0123456789abcdeé"], ids=["short", "with a space", "not ASCII"]
)
def test_an_unfit_token_refuses_to_start_with_a_sentence_that_does_not_repeat_it(
    token: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HLM_ADMIN_TOKEN", token)
    with pytest.raises(StartupError, match="HLM_ADMIN_TOKEN: expected at least 16 visible ASCII characters") as error:
        open_and_close()
    assert token not in str(error.value)


def test_a_taken_port_names_the_settings(admin: httpx.Client):
    with pytest.raises(StartupError, match=r"\(server\.admin_host, server\.admin_port\)"):
        asyncio.run(_enter(ServerSettings(admin_port=admin.base_url.port)))


async def _enter(settings: ServerSettings) -> None:
    async with admin_listener(settings, FakeReleases(), no_changes()):
        pass


def test_a_token_from_a_file_with_a_last_newline_is_the_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN + "\n")
    with listening(FakeReleases()) as url:
        assert httpx.get(f"{url}/releases", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_it_uses_rolls_back_and_tells(admin: httpx.Client, releases: FakeReleases):
    used = admin.post("/releases/use", json=RELEASE)
    assert (used.status_code, used.json()["stable"]["name"]) == (200, "second")
    assert releases.used == [ReleaseSettings.model_validate(RELEASE)]
    assert admin.get("/releases").json() == used.json() == releases.status()
    assert admin.post("/releases/rollback").json()["stable"]["name"] == "first"


@pytest.mark.parametrize(
    ("path", "name", "reason"),
    [
        ("use", "bad", "encoder x (space 1) cannot serve index y (space 2)"),
        ("use", "late", "another was wanted before it was loaded"),
        ("rollback", "bad", "there is no previous release in memory to roll back to"),
    ],
    ids=["rejected", "superseded", "no previous release"],
)
def test_what_is_not_served_is_409_with_the_reason(admin: httpx.Client, path: str, name: str, reason: str):
    answer = admin.post(f"/releases/{path}", json=RELEASE | {"name": name})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "release_rejected",
        "title": "The release was rejected",
        "status": 409,
        "detail": reason,
    }
    assert answer.status_code == 409


GIVEN = {
    "none": [],
    "empty": [("Authorization", "")],
    "no token": [("Authorization", "Bearer")],
    "another": [("Authorization", "Bearer 0123456789abcdeF")],
    "its beginning": [("Authorization", f"Bearer {TOKEN[:-1]}")],
    "more than it": [("Authorization", f"Bearer {TOKEN}0")],
    "another scheme": [("Authorization", f"Basic {TOKEN}")],
    "no scheme": [("Authorization", TOKEN)],
    "two": [("Authorization", "Bearer wrong-wrong-wrong"), ("Authorization", f"Bearer {TOKEN}")],
    "in another header": [("X-Token", TOKEN)],
}


@pytest.mark.parametrize(
    "path", ["/releases", "/releases/use", "/ads", "/ads/a", "/changes", "/docs", "/openapi.json", "/nowhere"]
)
@pytest.mark.parametrize("headers", GIVEN.values(), ids=GIVEN)
def test_nothing_is_answered_without_the_token(
    admin: httpx.Client, releases: FakeReleases, headers: list[tuple[str, str]], path: str
):
    answer = httpx.post(admin.base_url.join(path), json=RELEASE, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "unauthorized")
    assert (answer.headers["www-authenticate"], answer.headers["connection"]) == ("Bearer", "close")
    assert TOKEN not in answer.text
    assert releases.used == []


def test_the_scheme_may_be_written_in_any_case(admin: httpx.Client):
    assert admin.get("/releases", headers={"Authorization": f"bEARER {TOKEN}"}).status_code == 200


def test_tokens_are_compared_as_bytes_in_constant_time(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    compare, compared = hmac.compare_digest, []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    admin.get("/releases", headers={"Authorization": "Bearer wrong"})
    assert compared == [(b"wrong", TOKEN.encode())]


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"name": "x"}', 422, "invalid_request"),
        (json.dumps(RELEASE | {"force": True}).encode(), 422, "invalid_request"),
        (json.dumps(RELEASE | {"name": ""}).encode(), 422, "invalid_request"),
        (b" " * 70_000, 413, "body_too_large"),
        (json.dumps(RELEASE | {"name": "broken"}).encode(), 500, "internal_error"),
    ],
    ids=["not JSON", "no directories", "unknown field", "no name", "too long", "a fault of ours"],
)
def test_a_bad_request_is_a_problem_document(admin: httpx.Client, body: bytes, status: int, problem: str):
    answer = admin.post("/releases/use", content=body)
    assert (answer.status_code, answer.json()["type"]) == (status, problem)
    assert "internals" not in answer.text
    assert admin.get("/releases").json()["stable"]["name"] == "first"


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [("GET", "/nowhere", "not_found"), ("GET", "/releases/use", "method_not_allowed"), ("GET", "/docs", "not_found")],
)
def test_another_path_or_method_is_a_problem_document(admin: httpx.Client, method: str, path: str, problem: str):
    assert admin.request(method, path).json()["type"] == problem


def test_the_token_is_in_no_log_and_no_setting(
    releases: FakeReleases, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    caplog.set_level(1)
    with listening(releases) as url:
        for token in (TOKEN, "wrong"):
            for body in ({"name": "broken"}, {"name": "bad"}, {"name": "good"}, {}):
                headers = {"Authorization": f"Bearer {token}"}
                httpx.post(f"{url}/releases/use", json=RELEASE | body, headers=headers)
    assert len(releases.used) == 4
    assert "the admin listener is on http://127.0.0.1:" in caplog.text
    assert TOKEN not in caplog.text
    config = tmp_path / "serve.yaml"
    config.write_text("release: {name: a, encoder: e, index: i}\n")
    assert TOKEN not in load_settings(config, {}).model_dump_json()


def test_the_public_server_keeps_the_signals(releases: FakeReleases):
    async def handlers_while_it_runs() -> list[Any]:
        async with admin_listener(ServerSettings(admin_port=0), releases, no_changes()) as url:
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{url}/releases")).status_code == 401
            return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    assert threading.current_thread() is threading.main_thread()
    with asyncio.Runner() as runner:
        assert runner.run(handlers_while_it_runs())[0] == before[0]
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


def test_it_ends_although_a_release_is_still_being_loaded(releases: FakeReleases, caplog: pytest.LogCaptureFixture):
    def load() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            answers.append(client.post(f"{url}/releases/use", json=RELEASE | {"name": "slow"}))

    answers: list[httpx.Response] = []
    with listening(releases) as url:
        caller = threading.Thread(target=load)
        caller.start()
        wait_until(releases.loading.is_set)
    caller.join()
    assert [(answer.status_code, answer.json()["type"]) for answer in answers] == [(503, "not_ready")]
    assert "Traceback" not in caplog.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def raw(admin: httpx.Client) -> socket.socket:
    return socket.create_connection((admin.base_url.host, admin.base_url.port), timeout=30)


def test_a_header_that_does_not_end_is_given_up(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.connection.HEADER_TIMEOUT_S", 0.05)
    with raw(admin) as silent, raw(admin) as begun:
        begun.sendall(b"GET /releases HTTP/1.1\r\nX: ")
        assert (silent.recv(1), begun.recv(1)) == (b"", b"")


def test_a_header_without_measure_is_cut_off(admin: httpx.Client):
    with raw(admin) as connection:
        connection.sendall(b"GET /releases HTTP/1.1\r\n")
        for _ in range(20):
            connection.sendall(b"X: y\r\n" * 1_000)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")


def ask_for_releases(token: str) -> bytes:
    return f"GET /releases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_connection_takes_requests_until_one_lacks_the_token(admin: httpx.Client):
    with raw(admin) as connection:
        connection.sendall(ask_for_releases(TOKEN) * 2 + ask_for_releases("wrong") + ask_for_releases(TOKEN))
        answer = all_of(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"401"]
    assert answer.lower().count(b"connection: close") == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/releases/use", b" " * 70_000, 413),
        ("POST", "/releases/use", b'{"name": "broken", "encoder": "e", "index": "i"}', 500),
        ("WRONG", " ", b"", 400),
    ],
)
def test_every_refusal_that_ends_the_connection_says_so_once(
    admin: httpx.Client, method: str, path: str, body: bytes, status: int
):
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with raw(admin) as connection:
        connection.sendall(head.encode() + body)
        answer = all_of(connection)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.lower().count(b"connection: close") == 1


# --- the public listener, seen from here --------------------------------------------------------------------------


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    settings = load_settings(None, {"release": {"name": "a", "encoder": "e", "index": "i"}})
    return create_app(Service(settings))


def ask(app: Any, method: str, path: str, **request: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def test_no_public_route_takes_a_path(public: Any):
    """No part of a URL is a variable, no query parameter is read, and no field of a body is a file or directory."""
    specification = ask(public, "GET", "/openapi.json").json()
    assert "/retrieve" in specification["paths"]
    for path, operations in specification["paths"].items():
        assert "{" not in path
        assert all("parameters" not in operation for operation in operations.values()), path
    assert '"format": "path"' not in json.dumps(specification)
    assert '"format": "path"' in json.dumps(ReleaseSettings.model_json_schema())  # what it would look like


@pytest.mark.parametrize(
    "path",
    [
        "/releases",
        "/releases/use",
        "/releases/rollback",
        "/../etc/passwd",
        "/docs/../../etc/passwd",
        "/%2e%2e/etc/passwd",
    ],
)
def test_the_public_listener_has_no_admin_route_and_no_file(public: Any, path: str):
    for method in ("GET", "POST"):
        answer = ask(public, method, path, json=RELEASE, headers={"Authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, answer.json()["type"]) == (404, "not_found")


def test_the_public_information_does_not_hold_the_token(public: Any):
    answer = ask(public, "GET", "/info")
    assert answer.status_code == 200
    assert TOKEN not in answer.text


@pytest.mark.parametrize("module", ["app", "answer", "routes", "schemas"])
def test_what_handles_a_public_request_cannot_open_a_file(module: str):
    tree = ast.parse((ROOT / "service" / f"{module}.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not imported & {"io", "os", "pathlib", "shutil", "subprocess", "tempfile"}
    assert "open" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
