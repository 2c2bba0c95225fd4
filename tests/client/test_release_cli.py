"""`hlm release` against the real admin listener, over a stand-in for what loads releases."""

import json
import socket
import sys
from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

import hlm
from client.cli import release
from client.errors import AnswerError, ClientError
from client.release import ReleaseClient
from service.settings import ReleaseSettings
from tests.client.standin import Reply, problem, serve
from tests.service.admin_standin import TOKEN, FakeReleases, listening


@pytest.fixture
def releases() -> FakeReleases:
    return FakeReleases()


@pytest.fixture(autouse=True)
def admin(releases: FakeReleases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    with listening(releases) as url:
        monkeypatch.setenv("HLM_ADMIN_URL", url)
        yield url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(release, arguments, env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})


def rows(result: Result) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]


def test_use_serves_a_new_release_and_shows_it_beside_the_one_before(releases: FakeReleases):
    result = run("use", "second", "--encoder", "encoders/e2", "--index", "indexes/i2")
    assert result.exit_code == 0
    assert releases.used == [ReleaseSettings(name="second", encoder="encoders/e2", index="indexes/i2")]
    assert [row[:4] for row in rows(result)] == [
        ["stable", "second", "second-m", "second-i"],
        ["", "", "encoders/e2", "indexes/i2"],
        ["previous", "first", "first-m", "first-i"],
        ["", "", "encoders/e1", "indexes/i1"],
    ]


@pytest.mark.parametrize(
    ("option", "used"),
    [
        (("--index", "indexes/i2"), ("encoders/e1", "indexes/i2")),
        (("--encoder", "encoders/e2"), ("encoders/e2", "indexes/i1")),
    ],
    ids=["index", "encoder"],
)
def test_the_directory_that_is_left_out_stays_as_it_is_served(
    releases: FakeReleases, option: tuple[str, str], used: tuple[str, str]
):
    assert run("use", "second", *option).exit_code == 0
    assert [(str(one.encoder), str(one.index)) for one in releases.used] == [used]


def test_a_name_alone_is_a_release_that_the_service_has(releases: FakeReleases):
    run("use", "second", "--encoder", "encoders/e2", "--index", "indexes/i2")
    assert run("use", "first").exit_code == 0
    assert releases.used[-1] == ReleaseSettings(name="first", encoder="encoders/e1", index="indexes/i1")


def test_an_unknown_name_alone_says_which_there_are(releases: FakeReleases):
    error = run("use", "third").exception
    assert isinstance(error, ClientError)
    assert str(error) == (
        "The service has no release called 'third', only first; a new one needs --encoder, --index or both"
    )
    assert releases.used == []


def test_while_a_release_loads_a_log_has_a_line(releases: FakeReleases):
    result = run("use", "second", "--encoder", "e2", "--index", "[i2]")
    assert result.stderr == "Loading release second: encoder e2, index [i2] …\n"


def test_into_a_pipe_nothing_is_cut(releases: FakeReleases):
    result = run("use", "second", "--encoder", "e" * 300, "--index", "i" * 300)
    assert rows(result)[1] == ["", "", "e" * 300, "i" * 300, ""]


def test_a_rejected_release_is_an_error_with_the_reason(releases: FakeReleases):
    error = run("use", "bad", "--encoder", "x", "--index", "y").exception
    assert isinstance(error, AnswerError)
    assert error.reason == "409 release_rejected"
    assert str(error).endswith("release_rejected: encoder x (space 1) cannot serve index y (space 2)")


def test_rollback_serves_the_previous_release_again_and_only_once(releases: FakeReleases):
    run("use", "second", "--index", "i2")
    assert rows(run("rollback"))[0][:2] == ["stable", "first"]
    assert str(run("rollback").exception).endswith(
        "release_rejected: there is no previous release in memory to roll back to"
    )


def test_status_json_is_the_answer_as_it_came(releases: FakeReleases):
    assert json.loads(run("status", "--json").stdout) == releases.status()


def test_status_shows_what_a_later_service_may_say_and_nothing_that_a_terminal_would_obey():
    document = {
        "stable": {"name": "s\x1b[2J", "model_version": "m", "index_version": "i", "ads": 54_667},
        "canary": {"name": "c", "golden": {"overlap": 0.981242, "recall": None}},
        "last_swap": {"result": "rejected", "release": "bad", "reason": "[red]too long"},
        "loading": None,
    }
    with serve(lambda _: Reply(200, json.dumps(document).encode())) as service:
        result = run("status", "--admin-url", service.url)
    assert rows(result) == [
        ["stable", "s�[2J", "m", "i", "ads 54,667"],
        ["canary", "c", "", "", "golden overlap 0.9812"],
    ]
    assert "last swap: result rejected, release bad, reason [red]too long" in result.stdout
    assert "loading" not in result.stdout


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        pytest.param(problem(401, "unauthorized", "expected the token"), "answered 401 unauthorized", id="refused"),
        pytest.param(Reply(200, b"<h1>"), "something else than JSON", id="HTML"),
        pytest.param(Reply(200, b"[]"), "answered with list; expected an object", id="a list"),
        pytest.param(Reply(200, b"{}"), "no release called 'x', only none", id="nothing served"),
        pytest.param(
            Reply(200, b'{"stable": {"name": "x"}}'),
            "does not say the encoder directory of 'x'; give --encoder",
            id="no directories",
        ),
    ],
)
def test_an_answer_that_does_not_help_is_one_sentence(reply: Reply, message: str):
    with serve(lambda _: reply) as service:
        error = run("use", "x", "--admin-url", service.url).exception
    assert isinstance(error, ClientError)
    assert message in str(error)


@pytest.mark.parametrize(
    ("token", "message"),
    [("", "HLM_ADMIN_TOKEN is not set"), ("two words and more", "visible ASCII"), ("gehéim-gehéim-gehéim", "visible")],
    ids=["none", "a space", "not ASCII"],
)
def test_without_a_fit_token_nothing_is_asked(token: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HLM_ADMIN_TOKEN", token)
    error = run("status", "--admin-url", "http://127.0.0.1:1").exception
    assert isinstance(error, ClientError)
    assert message in str(error)


def test_the_token_goes_through_no_proxy_of_the_environment(admin: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with ReleaseClient(admin) as client:
        assert client.status().by_role["stable"]["name"] == "first"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status"], 0),
        (["rollback"], 1),
        (["use", "bad", "--encoder", "x", "--index", "y"], 1),
        (["status", "--admin-url", "http://127.0.0.1:{free}"], 1),
        (["use"], 2),
        (["use", "x", "--token", TOKEN], 2),
    ],
    ids=["done", "nothing to roll back to", "rejected", "nobody there", "no name", "a token as an option"],
)
def test_exit_codes(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    monkeypatch.setattr(sys, "argv", ["hlm", "release", *(part.replace("{free}", port) for part in arguments)])
    with pytest.raises(SystemExit) as ended:
        hlm.main()
    assert ended.value.code == code
    assert (capsys.readouterr().err.count("error: ") == 1) == (code == 1)


@pytest.mark.parametrize("command", ["use", "rollback", "status"])
def test_help_shows_examples_and_exit_codes_line_by_line(command: str):
    lines = [line.strip() for line in run(command, "--help").stdout.splitlines()]
    assert "Examples:" in lines
    assert "Exit codes:" in lines
    assert "2  wrong usage" in lines
