"""`hlm serve` where what it is to run on cannot be had: one sentence and no service, or the CPU, and it says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from tests.e2e.conftest import ROOT, SERVING_PYTHON, Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this build has CUDA"),
]
CUDA = '["CUDAExecutionProvider"]'
PROVIDERS = "HLM_INFERENCE__EXECUTION_PROVIDERS"


def serve(*args: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """A server that is expected not to start."""
    python = str(SERVING_PYTHON) if SERVING_PYTHON.exists() else sys.executable
    command = [python, "hlm.py", "serve", "--port", "0", *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (CUDA, "CUDAExecutionProvider is not in the installed onnxruntime, which has "),
        ('["TensorrtExecutionProvider", "CUDAExecutionProvider"]', "nvidia-ml-py is missing: install the extra gpu"),
        ('["CudaExecutionProvider"]', "CudaExecutionProvider is not in the installed onnxruntime"),
    ],
)
def test_what_cannot_be_had_ends_the_start_with_one_sentence(
    encoder: Path, sample_index: Path, wanted: str, reason: str
):
    ended = serve("--name", "r", "--encoder", encoder, "--index", sample_index, **{PROVIDERS: wanted})
    assert ended.returncode == 1
    assert ended.stdout == ""
    said = [line for line in ended.stderr.splitlines() if "error" in line]
    assert len(said) == 1
    assert reason in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_the_cpu_stands_in_where_it_may_and_that_is_said(encoder: Path, sample_index: Path):
    env = {PROVIDERS: CUDA, "HLM_INFERENCE__ALLOW_FALLBACK": "true", "HLM_SERVER__LOG_FORMAT": "json"}
    env |= {"HLM_INFERENCE__PADDING_BUCKETS": "[16]", "HLM_BATCHING__MAX_BATCH_SIZE": "2"}
    server = Server("--name", "r", "--encoder", encoder, "--index", sample_index, env=env)
    try:
        assert server.retrieve("drill").status_code == 200
        stable = server.client.get("/info").json()["releases"]["stable"]
        assert stable["execution_providers"] == ["CPUExecutionProvider"]
    finally:
        assert server.stop() == 0
    logged = [json.loads(line) for line in server.stderr.splitlines() if line.startswith("{")]
    [warning] = [line for line in logged if line["level"] == "warning"]
    assert "CUDAExecutionProvider cannot be had, so CPUExecutionProvider stands in" in warning["message"]


def test_two_builds_of_onnxruntime_are_refused(encoder: Path, sample_index: Path, tmp_path: Path):
    metadata = tmp_path / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    search = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    ended = serve("--name", "r", "--encoder", encoder, "--index", sample_index, PYTHONPATH=search)
    assert ended.returncode == 1
    assert "onnxruntime and onnxruntime-gpu are both installed" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
