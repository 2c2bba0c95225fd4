"""`hlm index build` and `hlm index inspect`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from index.cli import app
from tests.index.support import SPACE, unit_vectors, write_feed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    vectors = unit_vectors(25)
    lines = [{"ad_id": f"ad-{i}", "title": f"drill {i}", "embedding": v.tolist()} for i, v in enumerate(vectors)]
    lines[7]["status"] = "paused"
    write_feed(tmp_path / "shop.jsonl.gz", [*lines, b"?"])
    (tmp_path / "space.json").write_text(SPACE.model_dump_json())
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "other", "space": SPACE.model_dump()}))
    return tmp_path


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("space", ["space.json", "manifest.json"])
def test_build_ends_in_a_summary_and_then_has_nothing_to_do(place: Path, space: str):
    arguments = ("build", "--feed", place / "shop.jsonl.gz", "--space", place / space, "--out", place / "out")
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    for said in ("25", "not JSON", "1 of them not active", "ann_recall@25", "seconds", "publish"):
        assert said in first.stdout
    second = run(*arguments)
    assert "up to date" in second.stdout
    assert "seconds" in run(*arguments, "--force").stdout


def test_inspect_shows_the_manifest(place: Path):
    run("build", "--feed", place / "shop.jsonl.gz", "--space", place / "space.json", "--out", place / "out")
    shown = run("inspect", place / "out")
    for said in (SPACE.space_id, "25 ads, scanned exactly", "precomputed", "size of vectors", "1 of them not active"):
        assert said in shown.stdout
    manifest = json.loads(run("inspect", place / "out", "--json").stdout)
    assert manifest["feed"]["skipped"] == {"not JSON": 1}
    assert manifest["feed"]["not_active"] == 1
    assert manifest["ad_count"] == 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--encoder"),
        (["--space", "space.json", "--encoder", "e"], "--space"),
        (["--encoder", "e", "--embeddings", "shop.jsonl.gz"], "--embeddings needs --space"),
        (["--space", "missing.json"], "does not exist"),
        (["--space", "space.json", "--m", "1"], "--m"),
    ],
    ids=["neither encoder nor space", "both", "embeddings of no space", "no such file", "out of range"],
)
def test_wrong_usage_is_exit_code_2(place: Path, monkeypatch, arguments: list[str], said: str):
    monkeypatch.chdir(place)
    result = run("build", "--feed", "shop.jsonl.gz", "--out", "out", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "--feed", "cut.gz", "--space", "space.json", "--out", "out"], "cut.gz: the gzip stream ends"),
        (["build", "--feed", "shop.jsonl.gz", "--space", "cut.gz", "--out", "out"], "cut.gz: holds no embedding space"),
        (
            ["build", "--feed", "shop.jsonl.gz", "--encoder", "none", "--out", "out"],
            "none/manifest.json: cannot be read",
        ),
        (
            ["build", "--feed", "shop.jsonl.gz", "--space", "space.json", "--out", "out", "--strict"],
            "shop.jsonl.gz: line 26: not JSON",
        ),
        (["inspect", "none"], "none/manifest.json: cannot be read"),
    ],
    ids=["truncated feed", "no space", "no encoder", "strict", "nothing to inspect"],
)
def test_failure_is_exit_code_1_and_one_sentence(place: Path, arguments: list[str], said: str):
    (place / "cut.gz").write_bytes((place / "shop.jsonl.gz").read_bytes()[:-200])
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import hlm; hlm.main()",
        str(ROOT),
    ]
    result = subprocess.run([*command, "index", *arguments], cwd=place, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error:" in result.stderr
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (place / "out").exists()


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_help_shows_examples_and_exit_codes(command: str):
    shown = run(command, "--help").stdout
    assert f"hlm index {command}" in shown
    assert "Exit codes" in shown
