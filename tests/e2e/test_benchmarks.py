"""Every benchmark runs, in small: what its figures are is not looked at, that there are some is."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest
from transformers import BertConfig

from samples.generate import feed_bytes, generate_ads
from tests.e2e.conftest import ROOT
from tests.export.checkpoints import save_of_config

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for its clients"),
]

OF_A_SERVER = {
    "serving": "--rounds 1 --seconds 0.1",
    "zipf": "--rounds 1 --seconds 0.1 --warm-seconds 0.1 --cache-mib 0 1",
    "low_lane": "--rounds 1 --seconds 0.2",
    "overload": "--seconds 0.3",
    "front_split": "--rounds 1 --seconds 0.2",
}
ALONE = {"record": "--ads 1000 --seconds 0.05", "generator_limit": "--seconds 0.1"}
RUN_ELSEWHERE = {
    "bare": "by serving",
    "churn": "by check_index",
    "filtered": "by check_index",
    "kills": "by check_index",
    "live": "by check_index",
    "scale_probe": "by scale",
    "check_index": "in test_index_check.py",
    "drain": "in test_drain_check.py",
    "gpu_check": "in tests/benchmarks/test_gpu_check.py and test_gpu_retrieve.py, on the CPU",
    "history": "in test_costs.py",
    "int8_variants": "below, of a small encoder",
    "micro": "in test_costs.py",
    "scale": "below, with few ads",
    "swap": "in test_swap_check.py",
}


def figures(module: str, *args: str | Path) -> object:
    """The last line of a benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_none_is_left_out():
    modules = (ROOT / "benchmarks").glob("*.py")
    programs = {path.stem for path in modules if '__name__ == "__main__"' in path.read_text()}
    assert programs == OF_A_SERVER.keys() | ALONE.keys() | RUN_ELSEWHERE.keys()


@pytest.mark.parametrize("name", OF_A_SERVER)
def test_of_a_server(name: str, encoder: Path, sample_index: Path):
    assert figures(name, "--encoder", encoder, "--index", sample_index, *OF_A_SERVER[name].split())


@pytest.mark.parametrize("name", ALONE)
def test_alone(name: str):
    assert figures(name, *ALONE[name].split())


def test_scale_builds_opens_and_serves_each_size(encoder: Path, tmp_path: Path):
    small = ("--sizes", "2000", "--backends", "hnswlib", "--work", tmp_path)
    [found] = figures("scale", "--encoder", encoder, *small)
    assert (found["ads"], found["backend"]) == (2_000, "hnswlib")


def test_int8_variants_of_a_small_encoder(tmp_path: Path):
    size = BertConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2)
    checkpoint = save_of_config(tmp_path / "checkpoint", size)
    (tmp_path / "ads.jsonl.gz").write_bytes(feed_bytes(120, seed=1))
    asked = [(ad["ad_id"], ad["title"]) for ad in islice(generate_ads(120, seed=1), 20)]
    write_tsv(tmp_path / "queries.dev.tsv", ["query_id", "text"], asked)
    write_tsv(tmp_path / "qrels.dev.tsv", ["query_id", "ad_id", "grade"], [(ad_id, ad_id, "2") for ad_id, _ in asked])
    found = figures("int8_variants", tmp_path, "--model", checkpoint, "--repeats", "1")
    assert {"fp32", "int8, attention fused (the default)"} < {variant["variant"] for variant in found}


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])
