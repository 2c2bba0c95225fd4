"""Whole phases that are killed with SIGKILL after their first saves and in every embedding, against some left alone."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import train.descent
import train.embeddings
from samples.labelled import labelled_files
from tests.e2e.conftest import ROOT
from tests.train.test_run import recipe_of
from train.embeddings import EMBEDDINGS_NAME
from train.runs import Run
from train.sweep import run_phases

SAVED_AFTER = 5
DIES_AFTER = 6
"""Number of the step, from 0, with which a phase that began anew ends: two steps after its save, which are lost."""
SHARD = 100
STEPS = {"batch_size": 8, "learning_rate": 1e-3, "epochs": 1, "steps_per_save": SAVED_AFTER}
SAVES = ["teacher", "align", "refine, round 1", "refine, round 2", "joint"]
EMBEDDINGS = ["ads to mine", "ads", "queries", "joint ads"]
LIFE_S = 300
"""Most that a process may take for what others left of all phases; it is seconds."""


def then_die(done: Callable[..., None], is_time: Callable[..., bool]) -> Callable[..., None]:
    """What was to be done, and then, if it is time, SIGKILL."""

    def dying(*arguments: Any) -> None:
        done(*arguments)
        if is_time(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    return dying


def run_recipe(recipe: str, runs: str, dies: bool) -> None:
    """Run all phases, each time in a new process, until one lives to the end; prints how many did not.

    Ends where one dies of anything else, hangs, or is killed once more than resuming explains.
    """
    train.embeddings.SHARD_TEXTS = SHARD
    if dies:
        begun_at: list[int] = []
        restore = train.descent._restore
        train.descent._restore = lambda *arguments: begun_at.append(restore(*arguments)) or begun_at[-1]
        log = train.descent._StepLog
        log.append = then_die(log.append, lambda _, step, *__: begun_at[-1] == 0 and step == DIES_AFTER)
        train.embeddings.write_atomic = then_die(
            train.embeddings.write_atomic, lambda path, _: path.name == f"{SHARD:09d}.npy"
        )
    for killed in range(len(SAVES) + len(EMBEDDINGS) + 1):
        child = os.fork()
        if not child:
            signal.alarm(LIFE_S)
            run_phases(Run.open(recipe, Path(runs)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            print(killed)  # noqa: T201 - the answer to the test
            sys.exit(code and f"process {killed + 1} ended with {code}")
    sys.exit("every process was killed: none went on where the one before stopped")


def results(runs: Path) -> dict[str, Any]:
    """Weights, embeddings and logs without their times."""
    directory = runs / "tiny"
    found: dict[str, Any] = {}
    for name in ("tuned", "aligned/l2", "refined/l2", "joint", "joint-ads-encoder"):
        files = json.loads((directory / name / "manifest.json").read_text())["files"]
        found |= {f"{name}/{file}": entry["sha256"] for file, entry in files.items() if file.endswith(".safetensors")}
        for log in sorted((directory / name).glob("*.csv")):
            found[f"{name}/{log.name}"] = [row[:4] for row in csv.reader(log.read_text().splitlines())]
    found |= {name: (directory / name / EMBEDDINGS_NAME).read_bytes() for name in ("ads", "queries", "joint-ads")}
    return found


def test_a_recipe_that_is_killed_in_every_phase_ends_in_the_same_bits(tmp_path: Path):
    """With mined negatives, queries of titles, low-rank updates, GradCache and two rounds of refinement."""
    for name, content in labelled_files(ad_count=300, query_count=80, unlabelled_count=300, seed=1).items():
        (tmp_path / name).write_bytes(content)
    recipe = recipe_of("qwen3", tmp_path) | {"serving": None}
    recipe["joint"] |= {"optimisation": STEPS}
    recipe["teacher"] |= {"optimisation": STEPS}
    refine = {"anchor": 0.1, "loss": {"hard_negatives": 2}, "optimisation": STEPS | {"epochs": 2}}
    recipe["students"] = [{"name": "l2", "start": "teacher", "layers": 2, "refine": refine, "optimisation": STEPS}]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    killed = []
    for runs, dies in (("whole", False), ("killed", True)):
        code = (
            "import sys; from tests.train.test_resume import run_recipe; run_recipe(*sys.argv[1:3], sys.argv[3] == '1')"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "tiny.yaml"), str(tmp_path / runs), str(int(dies))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        killed.append(int(done.stdout))
    assert killed == [0, len(SAVES) + len(EMBEDDINGS)]
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
