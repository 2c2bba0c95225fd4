"""`hlm ads` against the real admin listener, over a record and writer without a model or a graph."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import hlm
from client.ads import PAUSES_S, AdsClient, change_each
from client.ads_cli import app
from client.errors import AnswerError, ClientError, UnreachableError
from client.feed import LINES_A_PIECE, Piece, read_pieces
from service.metrics import Metrics
from terminal import console
from tests.client.standin import Reply, problem, serve
from tests.index.records import contents
from tests.index.support import unit_vectors
from tests.service.admin_standin import TOKEN, FakeReleases, listening
from tests.service.ads_standin import Served, line

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "stable.db", Metrics())
    yield made
    made.writer.close()


@pytest.fixture(autouse=True)
def admin(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HLM_ADMIN_TOKEN", TOKEN)
    with listening(FakeReleases(), [served.release]) as url:
        monkeypatch.setenv("HLM_ADMIN_URL", url)
        yield url


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    monkeypatch.setattr(console, "_file", shown)  # `file` would be left set to what standard error is now
    return shown


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def put(*lines: bytes) -> None:
    with AdsClient(os.environ["HLM_ADMIN_URL"]) as client:
        client.put([Piece(1, b"".join(lines), 0)], lambda _: None)


def feed(path: Path, *lines: bytes) -> str:
    path.write_bytes(gzip.compress(b"".join(lines)) if path.suffix == ".gz" else b"".join(lines))
    return str(path)


@pytest.mark.parametrize("name", ["ads.jsonl", "ads.jsonl.gz"])
def test_a_feed_is_written_piece_by_piece(served: Served, tmp_path: Path, screen: io.StringIO, name: str):
    vector = unit_vectors(1)[0].tolist()
    lines = [line(f"ad-{number}", embedding=vector) for number in range(2 * LINES_A_PIECE + 1)]
    result = run("put", feed(tmp_path / name, *lines))
    assert (result.exit_code, result.stdout) == (0, "1,001 applied, 0 failed, sequence 1001\n")
    assert len(served.ads()) == 1001
    assert f"Writing {name}: " in screen.getvalue()


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_feed_comes_by_a_pipe(served: Served, packed: Callable[[bytes], bytes]):
    command = [sys.executable, "-m", "hlm", "ads", "put", "-", "--json"]
    given = packed(line("a") + line("b").rstrip())
    result = subprocess.run(command, input=given, capture_output=True, cwd=ROOT, check=True)
    assert json.loads(result.stdout) == {"applied": 2, "failed": [], "failed_count": 0, "sequence": 2}
    assert served.ads() == {"a", "b"}


def test_lines_that_fail_are_named_by_their_number_in_the_feed(served: Served, tmp_path: Path, screen: io.StringIO):
    good = [line(f"ad-{number}", embedding=unit_vectors(1)[0].tolist()) for number in range(LINES_A_PIECE)]
    lines = [*good, line("bad", bid=-1), b"?\n" * 30, b"x" * (3 << 20) + b"\n", line("last")]
    result = run("put", feed(tmp_path / "ads.jsonl", *lines))
    assert result.stdout == "501 applied, 32 failed, sequence 501\n"
    assert isinstance(result.exception, ClientError)
    assert str(result.exception) == "32 of 533 lines failed"
    shown = screen.getvalue()
    assert "line 501: bid: input should be greater than or equal to 0" in shown
    assert "line 520: not JSON" in shown
    assert "line 521" not in shown
    assert "and 12 more" in shown
    answer = json.loads(run("put", str(tmp_path / "ads.jsonl"), "--json").stdout)
    assert answer["failed"][-1] == {"line": 532, "reason": "longer than 1048576 bytes"}
    assert "last" in served.ads()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (gzip.compress(line("a") * 9000)[:-20], "ended before"), (b"\x1f\x8bnonsense", "")],
    ids=["missing", "cut off", "damaged"],
)
def test_a_feed_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes | None, reason: str):
    path = tmp_path / "ads.gz"
    if content is not None:
        path.write_bytes(content)
    error = run("put", str(path)).exception
    assert isinstance(error, ClientError)
    assert str(error).startswith(f"{path}: cannot be read after line ")
    assert reason in str(error)


def test_ads_are_paused_resumed_given_a_bid_shown_and_deleted(served: Served):
    put(line("a/1") + line("b"))
    assert run("pause", "a/1", "b").stdout == "2 applied, 0 failed, sequence 4\n"
    assert run("resume", "b").stdout == "1 applied, 0 failed, sequence 5\n"
    assert run("bid", "b", "0.45").exit_code == 0
    assert json.loads(run("show", "b").stdout)["ad"] == {
        "ad_id": "b",
        "bid": 0.45,
        "status": "active",
        "title": "Title of b",
    }
    assert run("bid", "b", "--none").exit_code == 0
    assert contents(served.path)["b"][0].bid is None
    assert run("delete", "b", "nobody").stdout == "1 applied, 0 failed, sequence 8\n"
    assert served.memory.statuses == {"a/1": "paused", "b": None}


def test_unknown_ads_are_named_and_the_others_are_changed(served: Served):
    put(line("a") + line("b"))
    result = run("pause", "a", "nope", "b", "nobody", "--json")
    assert str(result.exception) == "there is no ad 'nope', 'nobody'; the other 2 are done"
    assert isinstance(result.exception, ClientError)
    assert json.loads(result.stdout) == {
        "applied": 2,
        "failed": [
            {"ad_id": "nope", "reason": "there is no such ad"},
            {"ad_id": "nobody", "reason": "there is no such ad"},
        ],
        "failed_count": 2,
        "sequence": 4,
    }
    assert served.memory.statuses == {"a": "paused", "b": "paused"}
    assert str(run("bid", "nobody", "1").exception) == "there is no ad 'nobody'"


def test_a_negative_bid_is_called_that():
    result = run("bid", "a", "-3")
    assert result.exit_code == 2
    assert "should be greater than or equal to 0" in " ".join(result.stderr.split())


def test_a_campaign_keeps_what_is_left_out(admin: str):
    assert run("campaign", "c", "--budget", "exhausted").exit_code == 0
    assert (
        run("campaign", "c", "--pass-through-rate", "0.5", "--patch", '{"negative_keywords": ["free"]}').exit_code == 0
    )
    [change] = map(json.loads, run("tail", "--since", "0", "--no-follow", "--json").stdout.splitlines())
    assert change["campaign"] == {
        "campaign_id": "c",
        "budget": "exhausted",
        "pass_through_rate": 0.5,
        "negative_keywords": ["free"],
    }


def test_changes_are_printed_a_line_each():
    put(b"".join(line(f"ad-{number:03d}", bid=1) for number in range(150)))
    run("delete", "ad-007")
    lines = run("tail", "--since", "0", "--no-follow").stdout.splitlines()
    assert len(lines) == 150
    assert lines[0].startswith("1  ad ad-000  bid 1  title Title of ad-000")
    assert lines[-1] == "151  ad ad-007  deleted"
    assert run("tail", "--no-follow").stdout == ""
    beyond = run("tail", "--since", "999", "--no-follow")
    assert "deletions after change 999 may be missing, or the record was restored: compare all ads" in beyond.stderr


USAGE = {
    "nothing to pause": ["pause"],
    "no bid": ["bid", "a"],
    "a bid and none": ["bid", "a", "1", "--none"],
    "a negative bid": ["bid", "a", "--", "-1"],
    "a bid that is no number": ["bid", "a", "-x"],
    "an empty patch": ["campaign", "c"],
    "a patch that is no JSON": ["campaign", "c", "--patch", "{"],
    "a patch that is no object": ["campaign", "c", "--patch", "[1]"],
    "another budget": ["campaign", "c", "--budget", "low"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_is_2_and_asks_nothing(arguments: list[str], served: Served):
    assert run(*arguments).exit_code == 2
    assert served.record.sequence == 0


@pytest.mark.parametrize(("arguments", "code"), [(["show", "nobody"], 1), (["delete", "nobody"], 0)])
def test_exit_codes(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["hlm", "ads", *arguments])
    with pytest.raises(SystemExit) as ended:
        hlm.main()
    assert ended.value.code == code
    assert (capsys.readouterr().err.count("error: ") == 1) == (code == 1)


@pytest.mark.parametrize("command", ["put", "delete", "pause", "resume", "bid", "campaign", "show", "tail"])
def test_help_shows_examples_and_exit_codes_line_by_line(command: str):
    lines = [line.strip() for line in run(command, "--help").stdout.splitlines()]
    assert "Examples:" in lines
    assert "Exit codes:" in lines
    assert any(line.startswith(f"hlm ads {command}") or f"| hlm ads {command}" in line for line in lines)


# --- what is sent again -------------------------------------------------------------------------------------------

DONE = json.dumps({"applied": 1, "failed": [], "failed_count": 0, "sequence": 1}).encode()
PIECES = [Piece(1, b"{}\n", 3), Piece(2, b"{}\n", 6)]


def test_a_refusal_that_may_pass_is_waited_for():
    replies = [problem(503, "record_refused", "closed"), problem(503, "not_ready", "loading"), Reply(200, DONE)]
    pauses: list[float] = []
    with serve(lambda _: replies.pop(0)) as service, AdsClient(service.url, pause=pauses.append) as client:
        assert client.delete("a").applied == 1
    assert pauses == list(PAUSES_S[:2])


def test_a_refusal_that_does_not_pass_is_given_up():
    pauses: list[float] = []
    with (
        serve(lambda _: problem(503, "not_ready", "loading")) as service,
        AdsClient(service.url, pause=pauses.append) as client,
        pytest.raises(AnswerError, match="503 not_ready"),
    ):
        client.delete("a")
    assert pauses == list(PAUSES_S)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 507])
def test_other_refusals_are_final_and_say_what_is_written(status: int):
    replies = [Reply(200, DONE), problem(status, "some_problem", "because")]
    said = f"{status} some_problem: because; the lines before 2 are done"
    with (
        serve(lambda _: replies.pop(0)) as service,
        AdsClient(service.url, pause=pytest.fail) as client,
        pytest.raises(ClientError, match=said),
    ):
        client.put(PIECES, lambda _: None)


def test_ads_that_are_changed_when_a_command_breaks_off_are_counted():
    replies = [Reply(200, DONE), problem(404, "unknown_ad", "there is none"), problem(507, "storage_full", "no room")]
    said = "507 storage_full: no room; 1 of the 2 ads before 'c' are done, those after it are not"
    with (
        serve(lambda _: replies.pop(0)) as service,
        AdsClient(service.url, pause=pytest.fail) as client,
        pytest.raises(ClientError, match=said),
    ):
        change_each("abcd", client.delete)


def test_a_service_that_never_answered_is_not_waited_for(tmp_path: Path):
    with serve(lambda _: Reply(200, DONE)) as service:
        pass
    with AdsClient(service.url, pause=pytest.fail) as client, pytest.raises(UnreachableError) as said:
        client.delete("a")
    assert "cannot connect" in str(said.value)
    assert "(--admin-url or HLM_ADMIN_URL), and was the service started with HLM_ADMIN_TOKEN?" in str(said.value)


def test_a_service_that_goes_away_is_waited_for(served: Served):
    pauses: list[float] = []
    with listening(FakeReleases(), [served.release]) as url:
        client = AdsClient(url, pause=pauses.append)
        assert client.delete("a").applied == 0
    with client, pytest.raises(UnreachableError, match="cannot connect"):
        client.delete("a")
    assert pauses == list(PAUSES_S)


def test_an_answer_of_something_else_is_one_sentence():
    with (
        serve(lambda _: Reply(200, b"<html>")) as service,
        AdsClient(service.url) as client,
        pytest.raises(ClientError, match="answered 200, but not as this service does"),
    ):
        client.delete("a")


def test_pieces_hold_whole_lines_and_know_their_numbers(tmp_path: Path):
    lines = [b"%d\n" % number for number in range(LINES_A_PIECE)] + [
        b"y" * (3 << 20) + b"\n",
        b"z" * 100,
        b"\n",
        b"end",
    ]
    path = tmp_path / "feed"
    path.write_bytes(b"".join(lines))
    pieces = list(read_pieces(path))
    assert [piece.first_line for piece in pieces] == [1, LINES_A_PIECE + 1]
    assert pieces[0].body == b"".join(lines[:LINES_A_PIECE])
    assert pieces[1].body.split(b"\n") == [b"y" * ((1 << 20) + 2), b"z" * 100, b"end", b""]
    assert pieces[-1].read_bytes == path.stat().st_size
