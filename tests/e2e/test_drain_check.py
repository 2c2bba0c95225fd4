"""`make check-drain`, in small: one restart behind nginx."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.nginx import NginxMissingError, find_nginx
from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e


def drain(*args: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.drain", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_restart_behind_nginx_fails_no_request(encoder: Path, sample_index: Path):
    try:
        find_nginx(None)
    except NginxMissingError as error:
        pytest.skip(str(error))
    small = ("--restarts", "1", "--rate", "50", "--seconds", "20", "--grace-ms", "1000")
    result = drain("--encoder", encoder, "--index", sample_index, *small)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert (figures["restarts"], figures["failed"], figures["lost_alone"]) == (1, 0, 0)
    assert figures["requests"] > 1_000


def test_without_nginx_it_ends_with_code_2_and_one_sentence(encoder: Path, sample_index: Path):
    result = drain("--encoder", encoder, "--index", sample_index, "--nginx", "/nowhere/nginx")
    assert result.returncode == 2
    assert result.stderr.startswith("error: /nowhere/nginx was not found: `apt-get install nginx`")
