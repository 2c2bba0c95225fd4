"""`hlm export demo` as `make serve` runs it: the real MiniLM, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.manifest import EncoderManifest
from artifacts.store import load_manifest
from hlm import main
from service.encoder import Encoder
from tests.export.checkpoints import save_transformer
from tests.export.conftest import ROOT, hlm


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, titles: Path) -> tuple[Path, list[str | Path]]:
    """The artifact and the command that made it."""
    out = tmp_path_factory.mktemp("artifacts") / "minilm-int8"
    command = ["export", "demo", "--out", out, "--corpus", titles]
    result = hlm(*command)
    assert result.returncode == 0, result.stderr
    assert "overlap of exact top 100" in result.stderr
    return out, command


def test_the_demo_is_close_to_the_original(demo: tuple[Path, list[str | Path]]):
    encoder, manifest = Encoder.load(demo[0])
    assert manifest.parity.query_count == 1_000
    assert manifest.parity.cosine_p1 > 0.98
    assert manifest.parity.overlap_at_100 > 0.9
    assert manifest.files["model.onnx"].bytes < 25_000_000
    similar, other = (
        encoder.encode([encoder.tokenize(q) for q in ("sofa", "couch", "circular saw")])[1:]
        @ encoder.encode([encoder.tokenize("sofa")])[0]
    )
    assert similar > other + 0.2


def test_a_second_export_finds_nothing_to_do_and_never_loads_torch(demo: tuple[Path, list[str | Path]]):
    out, command = demo
    created_at = load_manifest(out, EncoderManifest).created_at
    script = (
        "import atexit, sys, hlm; sys.argv[0] = 'hlm';"
        "atexit.register(lambda: print(sorted({'torch', 'transformers', 'onnxruntime'} & sys.modules.keys())));"
        "hlm.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stderr
    assert result.stdout.strip() == "[]"
    assert load_manifest(out, EncoderManifest).created_at == created_at


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command in this process, which has torch loaded already; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["hlm", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_force_exports_again(tmp_path: Path, titles: Path, queries: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = save_transformer(tmp_path / "tiny")
    command = (checkpoint, "--out", tmp_path / "out", "--corpus", titles, "--queries", queries)
    assert run_here(monkeypatch, *command) == 0
    before = load_manifest(tmp_path / "out", EncoderManifest)
    assert run_here(monkeypatch, *command) == 0
    assert load_manifest(tmp_path / "out", EncoderManifest) == before
    assert run_here(monkeypatch, *command, "--force") == 0
    after = load_manifest(tmp_path / "out", EncoderManifest)
    assert after.created_at > before.created_at
    assert after.files == before.files


def test_a_missed_bound_is_exit_code_1_with_the_report_on_screen(
    tmp_path: Path,
    titles: Path,
    queries: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    checkpoint = save_transformer(tmp_path / "tiny")
    command = (checkpoint, "--out", tmp_path / "out", "--corpus", titles, "--queries", queries, "--min-overlap", "1")
    assert run_here(monkeypatch, *command) == 1
    shown = capsys.readouterr().err
    assert "overlap of exact top 100" in shown
    assert "nothing was published" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["demo"], id="no --out"),
        pytest.param(["demo", "--out", "x", "--precision", "int4"], id="unknown precision"),
        pytest.param(["demo", "--out", "x", "--min-overlap", "2"], id="bound over 1"),
        pytest.param(["demo", "--out", "x", "--queries", "nowhere.txt"], id="missing queries"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch):
    assert run_here(monkeypatch, *arguments) == 2


def test_an_engine_that_cannot_be_built_leaves_a_whole_artifact(tmp_path: Path, titles: Path):
    checkpoint, out = save_transformer(tmp_path / "tiny"), tmp_path / "artifact"
    command = ["export", checkpoint, "--precision", "fp16", "--execution-provider", "tensorrt", "--out", out]
    result = hlm(*command, "--corpus", titles, "--min-overlap", "0.5")
    if result.returncode:  # without a GPU or TensorRT
        assert result.returncode == 1
        said = " ".join(result.stderr.split())
        assert f"error: {out} is exported, but its engine cannot be built here: " in said
        assert "GPU" in said or "install the extra gpu" in said or "TensorRT is not installed" in said
        assert "Traceback" not in result.stderr
    assert load_manifest(out, EncoderManifest).precision == "fp16"


def test_int8_is_for_cpus(tmp_path: Path):
    result = hlm("export", "demo", "--out", tmp_path / "a", "--execution-provider", "cuda")
    assert result.returncode == 1
    assert "int8 is for CPUs" in result.stderr
