import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from client.cli import evaluate, query
from client.errors import ClientError
from tests.client.standin import Reply, answer, problem, serve

app = typer.Typer()
app.command("query")(query)
app.command("evaluate")(evaluate)


def hlm(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "q.tsv").write_text("query_id\ttext\nq1\tdrill\nq2\tsaw\n")
    (tmp_path / "r.tsv").write_text("query_id\tad_id\tgrade\nq1\ta\t2\nq2\tb\t1\n")
    return ["--queries", str(tmp_path / "q.tsv"), "--qrels", str(tmp_path / "r.tsv")]


def test_query_shows_ads_stage_timings_and_versions():
    reply = answer(["a1", "b2"], title=["Drill :x: [18V]", None], advertiser_id=["bosch", "makita"])
    with serve(lambda _: reply) as service:
        result = hlm("query", "drill", "--url", service.url)
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert rows == [["1", "a1", "Drill :x: [18V]", "1.0000", "bosch"], ["2", "b2", "", "0.9990", "makita"]]
    assert "2 of 10 ads: index_smaller_than_top_k" in result.stdout
    assert "encode 1.12 ms" in result.stdout
    assert "release r1  model minilm-1  index demo-1" in result.stdout
    assert service.requests == [{"query": "drill", "top_k": 10, "fields": ["title", "advertiser_id"]}]


def test_into_a_pipe_a_long_title_is_whole_and_on_one_line():
    with serve(lambda _: answer(["home-depot-100001"], title=["cordless " * 20], advertiser_id=["bosch"])) as service:
        result = hlm("query", "drill", "--url", service.url)
    [row] = [line for line in result.stdout.splitlines() if "home-depot-100001" in line]
    assert row.count("cordless") == 20
    assert "bosch" in row


def test_query_prints_nothing_that_a_terminal_would_obey():
    with serve(lambda _: answer(["a"], title=["\x1b[2J\x07[red]sale[/red]"])) as service:
        result = hlm("query", "drill", "--url", service.url)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "[2J" in result.stdout
    assert "[red]sale[/red]" in result.stdout


def test_query_json_is_the_answer_as_it_came():
    reply = answer(["a"], title=["Säge"])
    with serve(lambda _: reply) as service:
        result = hlm("query", "saw", "--url", service.url, "--json", "--top-k", "1", "--timeout-ms", "70")
    assert result.stdout_bytes == reply.body + b"\n"
    assert (service.requests[0]["top_k"], service.requests[0]["timeout_ms"]) == (1, 70)


@pytest.mark.parametrize(
    "option", [("--top-k", "0"), ("--top-k", "1001"), ("--timeout-ms", "0"), ("--timeout-ms", "10001")], ids=" ".join
)
def test_query_refuses_what_no_service_accepts_as_wrong_usage(option: tuple[str, str]):
    assert hlm("query", "drill", *option).exit_code == 2


def test_evaluate_shows_each_measure_with_its_count_of_queries(files: list[str]):
    with serve(lambda _: answer(["a", "b"])) as service:
        result = hlm("evaluate", "--url", service.url, *files)
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert rows[0] == ["R(rel=2)@100", "1.0000", "1"]
    assert ["nDCG@10", "0.8155", "2"] in rows  # 1 where the ad comes first, 1 / log2(3) where it comes second
    assert "2 queries asked, 0 without an answer" in result.stdout


def test_evaluate_writes_the_same_report_to_screen_and_file(files: list[str], tmp_path: Path):
    out = tmp_path / "reports" / "dev.json"
    with serve(lambda _: answer(["a", "b"])) as service:
        result = hlm("evaluate", "--url", service.url, *files, "--json", "--out", str(out))
    report = json.loads(result.stdout)
    assert report == json.loads(out.read_text())
    assert report["measures"][0] == {"measure": "R(rel=2)@100", "value": 1.0, "query_count": 1}
    assert (report["asked_count"], report["failures"]) == (2, {})


def test_evaluate_fails_after_its_report_when_queries_got_no_answer(files: list[str]):
    def respond(request: dict[str, object]) -> Reply:
        return answer(["a"]) if request["query"] == "drill" else problem(504, "deadline_exceeded", "too late")

    with serve(respond) as service:
        result = hlm("evaluate", "--url", service.url, *files)
    assert result.exit_code == 1
    assert "R(rel=2)@100" in result.stdout
    assert isinstance(result.exception, ClientError)
    assert "1 of 2 queries got no answer" in str(result.exception)
    assert "504 deadline_exceeded (1: q2)" in str(result.exception)


def test_evaluate_says_where_a_report_could_not_be_written(files: list[str], tmp_path: Path):
    with serve(lambda _: answer(["a"])) as service:
        result = hlm("evaluate", "--url", service.url, *files, "--out", str(tmp_path))
    assert isinstance(result.exception, ClientError)
    assert str(result.exception) == f"{tmp_path}: cannot be written (Is a directory)"


@pytest.mark.parametrize("command", ["query", "evaluate"])
def test_help_shows_examples_and_exit_codes_line_by_line(command: str):
    lines = [line.strip() for line in hlm(command, "--help").stdout.splitlines()]
    assert "Examples:" in lines
    assert "Exit codes:" in lines
    assert "2  wrong usage" in lines
