"""Whole recipes on small random models: every phase, export, index, evaluation, a served query, and a second run."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import hlm
from artifacts.manifest import EncoderManifest, IndexManifest
from artifacts.store import load_manifest
from export.source import ExportError
from index.exact import exact_top_k
from samples.labelled import labelled_files
from service.encoder import Encoder
from tests.e2e.conftest import ROOT, Server
from tests.train.checkpoints import save_tiny
from train.data import LabelledQueries, read_inventory, read_split, relevant_pairs
from train.embed_ads import embed_ads
from train.embeddings import read_embeddings
from train.encoders import load_encoder
from train.errors import TrainError
from train.evaluate import evaluate
from train.latency import measure_costs
from train.mine import mine_negatives
from train.prune import layers_of
from train.recipe import load_recipe
from train.refine import refine_student
from train.release import make_release
from train.runs import CheckpointManifest, EmbeddingsManifest, Run
from train.stages import Stages
from train.teacher import made_up_queries

BATCH = 8
STEPS = {"batch_size": BATCH, "learning_rate": 1e-3}
REFINE = {"anchor": 0.1, "loss": {"hard_negatives": 2}, "optimisation": STEPS}


def write_more_ads(path: Path) -> None:
    """A feed whose ads say when and for which queries they may be shown."""
    ads: list[dict[str, Any]] = [
        {"ad_id": "begun", "starts_at": "2020-01-01T00:00:00Z"},
        {"ad_id": "over", "ends_at": "2021-01-01T00:00:00Z"},
        {"ad_id": "not-used", "negative_keywords": ["used"]},
    ]
    path.write_text("".join(json.dumps(ad | {"title": "sofa"}) + "\n" for ad in ads))


def recipe_of(family: str, directory: Path) -> dict[str, Any]:
    """A ladder of two rungs, and for BERT an arm of each objective and of a one-shot cut, whose heads begin at random.

    A head that was fitted leaves so little to learn that the loss of a batch is chance.
    """
    checkpoint = save_tiny(directory / family, family, layers=4)
    narrow = save_tiny(directory / "narrow", "bert", layers=1, hidden=24)
    rungs: list[dict[str, Any]] = [
        {"name": "l3", "start": "teacher", "layers": 3, "layer_rule": "norm_ratio", "head": "kept"},
        {"name": "l2", "start": "l3", "layers": 2, "ffn_width": 48, "refine": REFINE},
    ]
    arms = [{"name": name, "start": "l3", "objective": name, "head": "random"} for name in ("cosine", "kl", "kernel")]
    arms.append({"name": "one-shot", "start": str(checkpoint), "layers": 1, "head": "random"})
    students = rungs + (arms if family == "bert" else [])
    write_more_ads(directory / "more.jsonl")
    large = {"lora_rank": 4, "pooling": "lasttoken", "mini_batch_size": 6} if family == "qwen3" else {}
    negatives = {"hard_negatives": 1, "negatives_from": "mined"}
    return {
        "dim": 16,
        "query": {"prompt": "query: ", "max_tokens": 16},
        "ad": {"max_tokens": 24},
        "data": {
            "train": [str(directory)],
            "dev": [str(directory)],
            "more_ads": [str(directory / "more.jsonl")],
            "queries": str(directory / "unlabelled.tsv"),
            "held_out_queries": 20,
        },
        "teacher": {
            "model": str(checkpoint),
            "loss": negatives,
            "title_queries": 0.5,
            "matryoshka_dims": [8, 16],
            "optimisation": STEPS,
        }
        | large,
        "students": [student | {"optimisation": STEPS} for student in students],
        "joint": {"query_model": str(narrow), "optimisation": STEPS},
        "serving": {"student": "l2", "precision": "int8" if family == "bert" else "fp32", "min_overlap": 0.5},
        "evaluation_k": 20,
    }


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(hlm.app, ["train", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module", params=["bert", "qwen3"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a recipe that was run from its first phase to its last."""
    directory = tmp_path_factory.mktemp(request.param)
    for name, content in labelled_files(ad_count=300, query_count=80, unlabelled_count=300, seed=1).items():
        (directory / name).write_bytes(content)
    (directory / "tiny.yaml").write_text(yaml.safe_dump(recipe_of(request.param, directory)))
    run("run", directory / "tiny.yaml", "--runs", directory / "runs")
    return directory / "runs" / "tiny"


def report_of(finished: Path, filters: str = "", below: str = "") -> dict[str, dict[str, Any]]:
    """The stages of the whole set, or of that where a filter is asked for."""
    stages = json.loads((finished / "evaluation" / below / "report.json").read_text())["stages"]
    return {stage["stage"]: stage for stage in stages if stage["labelled_set"].partition(", ")[2] == filters}


def test_all_students_live_in_the_teachers_space_and_have_their_size(finished: Path):
    space = load_manifest(finished / "teacher", CheckpointManifest).space
    assert (space.dim, space.matryoshka_dims, space.query_prompt) == (16, (8,), "query: ")
    students = [*finished.glob("aligned/*/manifest.json"), *finished.glob("refined/*/manifest.json")]
    assert {load_manifest(path.parent, CheckpointManifest).space for path in students} == {space}
    student = load_encoder(str(finished / "refined" / "l2"))
    assert len(layers_of(student)) == 2
    assert student[0].auto_model.config.intermediate_size == 48
    assert student.get_embedding_dimension() == 16


def test_the_teacher_learns_from_titles_beside_labels(finished: Path):
    directory = finished.parents[1]
    recipe = load_recipe(directory / "tiny.yaml")
    inventory = read_inventory(recipe.data)
    labelled = relevant_pairs(read_split(recipe.data.train, "train", inventory))
    made_up = relevant_pairs(made_up_queries(recipe, inventory))
    assert len(made_up) == pytest.approx(len(inventory.texts) / 2, rel=0.2)
    steps = (finished / "tuned" / "log.csv").read_text().splitlines()[1:]
    assert len(steps) == len(labelled) // BATCH + len(made_up) // BATCH


def test_alignment_brings_the_students_nearer(finished: Path):
    """Not by the similarities of queries: to a teacher that knows nothing all queries are alike already."""
    for log in finished.glob("aligned/*/log.csv"):
        if log.parent.name == "kernel":
            continue
        with log.open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert np.mean(losses[-10:]) < np.mean(losses[:10]), log


def test_the_report_holds_every_stage_against_the_teacher(finished: Path):
    report = report_of(finished)
    precision = load_manifest(finished / "release" / "encoder", EncoderManifest).precision
    exported = f"l2, {precision}"
    assert next(iter(report)) == "teacher"
    assert {"l3, aligned", "l2, aligned", "l2, refined", "teacher, fp32", "l3, fp32", exported} <= set(report)
    assert all(kept["value"] == 1 for kept in report["teacher"]["retention"].values())
    assert report["teacher"]["overlap"] == 1
    assert report["l2, refined"]["overlap"] > 0.15  # by chance it is 20 of 279 ads
    assert 0 < report["teacher"]["judged"] < 1
    assert report["teacher, fp32"]["overlap"] == pytest.approx(1, abs=0.1)  # PyTorch may run in bf16
    assert report[exported]["overlap"] == pytest.approx(report["l2, refined"]["overlap"], abs=0.15)
    scanned = report[f"{exported}, HNSW"]  # as there are so few ads
    assert scanned["measures"] == report[exported]["measures"]
    assert scanned["overlap"] == report[exported]["overlap"]


def test_each_step_is_held_against_the_one_before(finished: Path):
    lines = [line.split(" | ") for line in (finished / "evaluation" / "steps.md").read_text().splitlines()[2:]]
    steps = {(line[1], line[2]): line[3:] for line in lines if "half" not in line[0]}
    precision = load_manifest(finished / "release" / "encoder", EncoderManifest).precision
    chain = ["teacher", "l2, aligned", "l2, refined", f"l2, {precision}", f"l2, {precision}, HNSW"]
    assert {("teacher, fp32", "teacher"), *zip(chain[1:], chain, strict=False)} <= set(steps)
    report = report_of(finished)
    apart = report["l2, refined"]["measures"]["nDCG@10"] - report["l2, aligned"]["measures"]["nDCG@10"]
    assert float(steps["l2, refined", "l2, aligned"][-1].split()[0]) == pytest.approx(apart, abs=6e-5)
    filtered = [line for line in lines if "half" in line[0]]
    assert {(line[1], line[2]) for line in filtered} >= {("l2, fp32, HNSW", "l2, fp32")}


def test_the_index_is_asked_for_each_query_at_the_time_of_the_evaluation(finished: Path):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    inventory = read_inventory(made.recipe.data)
    now = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
    stages = {stage.name: stage for stage in Stages(made, inventory, now).unfiltered(len(inventory.active))}
    texts = ["sofa", "used sofa"]
    ad_ids = list(inventory.rows)
    for name in ("l2, fp32", "l2, fp32, HNSW"):
        rows = stages[name].search(texts, stages[name].embed(texts))
        shown = [{ad_ids[row] for row in of_query if row >= 0} & {"begun", "over", "not-used"} for of_query in rows]
        assert shown == [{"begun", "not-used"}, {"begun"}]


def test_a_filter_that_leaves_too_few_ads_is_not_evaluated(finished: Path):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    files = (finished.parents[1] / "queries.dev.tsv", finished.parents[1] / "qrels.dev.tsv")
    report = evaluate(replace(made, recipe=made.recipe.model_copy(update={"evaluation_k": 1000})), files)
    assert report.k == report.ad_count
    assert {stage.labelled_set for stage in report.stages} == {f"{finished.parents[1].name}/queries.dev"}


def test_ads_of_another_feed_are_neither_refined_against_nor_evaluated(finished: Path):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    (finished.parents[1] / "new.jsonl").write_text('{"ad_id": "new", "title": "sofa"}\n')
    feeds = [finished.parents[1] / "new.jsonl", *made.recipe.data.more_ads]
    data = made.recipe.data.model_copy(update={"more_ads": feeds})
    changed = replace(made, recipe=made.recipe.model_copy(update={"data": data}))
    with pytest.raises(TrainError, match="other ads than the recipe has now; run `hlm train embed-ads` again"):
        evaluate(changed)
    with pytest.raises(TrainError, match="other ads than the recipe has now"):
        refine_student(changed, made.recipe.student("l2"))


def test_what_rests_on_another_refinement_is_left_out(finished: Path, capsys: pytest.CaptureFixture[str]):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    students = [
        student.model_copy(update={"refine": student.refine and student.refine.model_copy(update={"anchor": 0.7})})
        for student in made.recipe.students
    ]
    changed = replace(made, recipe=made.recipe.model_copy(update={"students": students}))
    inventory = read_inventory(made.recipe.data)
    names = [stage.name for stage in Stages(changed, inventory, 0).unfiltered(5)]
    assert {"l3, aligned", "l2, aligned", "l3, fp32"} <= set(names)
    assert not {name for name in names if name.startswith("l2") and name != "l2, aligned"}
    assert f"{finished / 'refined' / 'l2'}: left out" in capsys.readouterr().err


def test_what_is_cut_from_a_student_that_would_be_another_now_is_left_out_with_it(
    finished: Path, capsys: pytest.CaptureFixture[str]
):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    students = [
        student.model_copy(update={"layer_rule": "keep_ends" if student.name == "l3" else student.layer_rule})
        for student in made.recipe.students
    ]
    changed = replace(made, recipe=made.recipe.model_copy(update={"students": students, "joint": None}))
    inventory = read_inventory(made.recipe.data)
    names = [stage.name for stage in Stages(changed, inventory, 0).unfiltered(5)]
    assert {name.partition(",")[0] for name in names} <= {"teacher", "one-shot"}
    assert {"teacher", "teacher, fp32", "teacher, fp32, HNSW"} <= set(names)
    said = capsys.readouterr().err
    for directory in ("aligned/l3", "aligned/l2", "refined/l2"):
        assert f"{finished / directory}: left out" in said


def test_an_index_of_what_the_ads_were_is_left_out(finished: Path, tmp_path: Path):
    """The same ids and the same teacher, but another bid."""
    copied = tmp_path / "tiny"
    shutil.copytree(finished, copied, symlinks=True)
    more = tmp_path / "more.jsonl"
    lines = (finished.parents[1] / "more.jsonl").read_text().replace('"title": "sofa"', '"title": "sofa", "bid": 2.5')
    more.write_text(lines)
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), tmp_path)
    data = made.recipe.data.model_copy(update={"more_ads": [more]})
    changed = replace(made, recipe=made.recipe.model_copy(update={"data": data}))
    inventory = read_inventory(data)
    embed_ads(changed)
    stages = Stages(changed, inventory, 0)
    assert not stages.has_index
    names = {stage.name for stage in stages.unfiltered(5)}
    assert "teacher, fp32" in names
    assert "teacher, fp32, HNSW" not in names


def test_an_export_of_an_earlier_checkpoint_is_not_timed(finished: Path, tmp_path: Path):
    copied = tmp_path / "tiny"
    shutil.copytree(finished, copied, symlinks=True)
    shutil.copytree(copied / "exported" / "l3-fp32", copied / "exported" / "teacher-fp32", dirs_exist_ok=True)
    costs = measure_costs(Run.open(str(finished.parents[1] / "tiny.yaml"), tmp_path))
    assert ("teacher", "fp32") not in {(cost.name, cost.precision) for cost in costs}
    assert {cost.name for cost in costs if cost.precision == "fp32"} >= {"l3", "l2"}


def test_a_sweep_with_a_leak_trains_nothing(finished: Path, tmp_path: Path):
    directory = tmp_path / "leaky"
    directory.mkdir()
    for path in finished.parents[1].glob("*.*"):
        if path.suffix in {".gz", ".tsv"}:
            shutil.copyfile(path, directory / path.name)
    dev = (directory / "queries.dev.tsv").read_text().splitlines()[1].split("\t")[1]
    (directory / "queries.train.tsv").write_text(f"query_id\ttext\nleak\t{dev}\n")
    data = {"train": [str(directory)], "dev": [str(directory)], "more_ads": []}
    sweep = {"base": str(finished.parents[1] / "tiny.yaml"), "data": data, "arms": {"first": {}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    result = CliRunner().invoke(hlm.app, ["train", "sweep", str(tmp_path / "sweep.yaml"), "--runs", str(tmp_path)])
    assert "dev queries among the train split's: 1" in str(result.exception)
    assert not (tmp_path / "sweep").exists()


def test_a_second_round_mines_with_the_student_and_an_anchor_holds_it(finished: Path, monkeypatch: pytest.MonkeyPatch):
    mined: list[np.ndarray] = []

    def mine(labelled: LabelledQueries, queries: np.ndarray, *arguments: Any, **named: Any) -> np.ndarray:
        mined.append(queries)
        return mine_negatives(labelled, queries, *arguments, **named)

    monkeypatch.setattr("train.refine.mine_negatives", mine)
    cosines = []
    for anchor in (0, 10):
        steps = STEPS | {"epochs": 2}
        refine = {"anchor": anchor, "rounds": 2, "loss": {"hard_negatives": 2}, "optimisation": steps}
        students = yaml.safe_load((finished.parents[1] / "tiny.yaml").read_text())["students"][:2]
        recipe = {"base": str(finished.parents[1] / "tiny.yaml"), "students": students, "serving": None}
        students[1]["refine"] = refine
        path = finished.parents[1] / f"anchor-{anchor}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        run("teacher", path, "--runs", finished.parent)
        run("embed-ads", path, "--runs", finished.parent)
        run("align", path, "--runs", finished.parent)
        run("refine", path, "--runs", finished.parent)
        refined = finished.parent / path.stem / "refined" / "l2"
        cosines.append(load_manifest(refined, CheckpointManifest).measures["cosine_mean"])
    first, second = mined[:2]
    teacher = read_embeddings(finished / "train-queries")
    assert np.array_equal(first, teacher)
    assert 0.1 < (first * second).sum(axis=1).mean() < 0.999
    assert cosines[1] > cosines[0]


def test_filters_lose_nothing_where_the_index_is_scanned(finished: Path):
    whole, filtered = report_of(finished), report_of(finished, "half the advertisers")
    assert filtered["teacher"]["overlap"] == 1
    assert filtered["l2, fp32, HNSW"]["measures"] == filtered["l2, fp32"]["measures"]
    assert filtered["teacher"]["measures"] != whole["teacher"]["measures"]


def test_a_pair_that_learns_together_has_a_space_of_its_own(finished: Path):
    pair = [load_manifest(finished / name, CheckpointManifest) for name in ("joint", "joint-ads-encoder")]
    teacher = load_manifest(finished / "teacher", CheckpointManifest)
    assert pair[0].space == pair[1].space == load_manifest(finished / "joint-ads", EmbeddingsManifest).space
    assert pair[0].space.space_id != teacher.space.space_id
    student = load_encoder(str(finished / "joint"))
    assert (len(layers_of(student)), student.get_embedding_dimension()) == (1, 16)
    report = report_of(finished)
    assert report["joint"]["measures"].keys() == report["teacher"]["measures"].keys()


def test_a_student_too_far_from_its_teacher_is_not_published(finished: Path):
    student = {"name": "far", "start": "teacher", "layers": 1, "optimisation": STEPS, "min_cosine": 1}
    recipe = {"base": str(finished.parents[1] / "tiny.yaml"), "students": [student], "serving": None}
    path = finished.parents[1] / "far.yaml"
    path.write_text(yaml.safe_dump(recipe))
    run("teacher", path, "--runs", finished.parent)
    result = CliRunner().invoke(hlm.app, ["train", "align", str(path), "--runs", str(finished.parent)])
    assert result.exit_code
    assert "where at least 1.0000 is wanted" in str(result.exception)
    assert not (finished.parent / "far" / "aligned" / "far").exists()


def test_what_is_served_is_an_export_and_one_too_far_from_its_checkpoint_is_not_released(finished: Path):
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), finished.parent)
    assert made.recipe.serving is not None
    served = made.exported("l2", made.recipe.serving.precision)
    released = load_manifest(made.encoder, EncoderManifest)
    assert released == load_manifest(served, EncoderManifest)
    unreachable = made.recipe.serving.model_copy(update={"min_overlap": 1.5})
    with pytest.raises(TrainError, match="is wanted to serve it; nothing was released"):
        make_release(replace(made, recipe=made.recipe.model_copy(update={"serving": unreachable})))
    assert load_manifest(made.encoder, EncoderManifest) == released


def test_costs_stand_beside_the_recall_that_they_buy(finished: Path):
    lines = (finished / "evaluation" / "latency.json").read_text().splitlines()
    costs = {f"{cost['name']}, {cost['precision']}": cost for cost in map(json.loads, lines)}
    assert {"teacher, fp32", "l3, fp32", "l2, fp32"} <= set(costs)
    assert costs["teacher, fp32"]["speed_up"] == {"1": 1, "8": 1, "32": 1}
    assert costs["l2, fp32"]["us"]["1"] > 0
    kept = report_of(finished)["l2, fp32"]["retention"]["R(rel=2)@20"]["value"]
    assert costs["l2, fp32"]["recall_kept"] == kept
    assert (finished / "evaluation" / "frontier.svg").stat().st_size > 1000


def test_an_encoder_too_large_for_a_graph_file_is_left_out_unless_it_is_served(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    copied = tmp_path / "tiny"
    shutil.copytree(finished, copied, symlinks=True)
    for directory in copied.glob("exported/teacher-*"):
        shutil.rmtree(directory)
    teacher = sum(parameter.numel() for parameter in load_encoder(str(finished / "teacher")).parameters())
    monkeypatch.setattr("train.release.MAX_PARAMETERS", teacher)
    made = Run.open(str(finished.parents[1] / "tiny.yaml"), tmp_path)
    make_release(made)
    assert f"exported/teacher-fp32: left out, as {teacher:,} parameters" in capsys.readouterr().err
    costs = {cost.name: cost for cost in measure_costs(made)}
    assert "teacher" not in costs
    assert costs["l2"].us[1] > 0
    assert costs["l2"].speed_up == {}
    monkeypatch.setattr("export.onnx_graph.MAX_PARAMETERS", 1)
    for directory in copied.glob("exported/l2-*"):
        shutil.rmtree(directory)
    with pytest.raises(ExportError, match="parameters where a graph file holds"):
        make_release(made)


def test_a_second_run_makes_nothing_again(finished: Path):
    def made() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.rglob("manifest.json")}

    before = made()
    run("run", finished.parents[1] / "tiny.yaml", "--runs", finished.parent)
    assert made() == before


def test_other_queries_are_scored_in_every_stage_beside_the_recipes_own_report(finished: Path):
    data, before = finished.parents[1], report_of(finished)
    lines = (data / "queries.train.tsv").read_text().splitlines(keepends=True)
    (data / "other").mkdir()
    (data / "other" / "queries.train.tsv").write_text("".join(lines[:-1]))
    for directory in (data, data / "other"):
        files = ("--queries", directory / "queries.train.tsv", "--qrels", data / "qrels.train.tsv")
        assert "overlap@20" in run("evaluate", data / "tiny.yaml", *files, "--runs", finished.parent)
    for directory, query_count in ((data, len(lines) - 1), (data / "other", len(lines) - 2)):
        name = f"{directory.name}/queries.train"
        found = report_of(finished, below=name)
        assert {stage["labelled_set"] for stage in found.values()} == {name}
        assert {stage["query_count"] for stage in found.values()} == {query_count}
        assert list(found) == list(before)
    assert report_of(finished) == before


def test_a_sweep_takes_what_others_made_and_holds_its_arms_against_the_first(finished: Path):
    cold = {"teacher": {"loss": {"temperature": 0.02}}}
    arms = {"same": {}, "shorter": {"dim": 8}, "colder": {"joint": None} | cold}
    sweep = {"base": str(finished.parents[1] / "tiny.yaml"), "students": [], "serving": None, "arms": arms}
    recipe = finished.parents[1] / "sweep.yaml"
    recipe.write_text(yaml.safe_dump(sweep, sort_keys=False))
    run("sweep", recipe, "--runs", finished.parent)
    made = finished.parent / "sweep"
    for artifact in ("tuned", "teacher", "ads", "joint", "joint-ads-encoder", "joint-ads"):
        assert (made / "same" / artifact).resolve() == finished / artifact
    assert (made / "shorter" / "tuned").resolve() == finished / "tuned"
    assert load_manifest(made / "shorter" / "ads", EmbeddingsManifest).space.dim == 8
    assert not (made / "colder" / "tuned").is_symlink()
    lines = [line.split(" | ") for line in (made / "table.md").read_text().splitlines()[2:]]
    assert [line[1] for line in lines] == ["same", "same", "shorter", "shorter", "colder"]
    assert [line[2] for line in lines] == ["teacher", "joint", "teacher", "joint", "teacher"]
    drawn = (made / "differences.svg").read_text()
    assert "<!-- shorter: joint -->" in drawn
    assert "<!-- colder: teacher -->" in drawn
    assert "<!-- same: teacher -->" not in drawn
    same, colder = lines[0], lines[-1]
    assert same[4] == "+0.0000 [+0.0000, +0.0000]"
    assert float(colder[3]) - float(same[3]) == pytest.approx(float(colder[4].split()[0]), abs=2e-4)


@pytest.mark.e2e
def test_the_release_is_served_and_answers_from_the_teachers_embeddings(finished: Path):
    encoder, _ = Encoder.load(finished / "release" / "encoder")
    embedding = encoder.encode([encoder.tokenize("cordless drill 18v")])
    feed = gzip.decompress((finished / "ads" / "ads.jsonl.gz").read_bytes()).splitlines()
    shown = [ad.get("status", "active") == "active" and ad["ad_id"] != "over" for ad in map(json.loads, feed)]
    active = np.flatnonzero(shown)
    ads = np.load(finished / "ads" / "embeddings.npy").astype(np.float32)
    _, scores = exact_top_k(embedding, ads, 5, rows=active)
    server = Server("--name", "t", "--encoder", finished / "release/encoder", "--index", finished / "release/index")
    answer = server.retrieve("cordless drill 18v", top_k=5).json()
    assert server.stop() == 0
    assert [ad["score"] for ad in answer["ads"]] == pytest.approx(scores[0].tolist(), abs=2e-3)
    assert answer["index_version"] == load_manifest(finished / "release" / "index", IndexManifest).index_version


def test_a_phase_that_lacks_its_forerunner_says_which(tmp_path: Path):
    recipe = recipe_of("bert", tmp_path)
    for name, content in labelled_files(ad_count=300, query_count=40, unlabelled_count=100, seed=1).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "hlm.py", "train", "align", str(tmp_path / "r.yaml"), "--runs", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "teacher: not there yet; run `hlm train teacher`" in " ".join(result.stderr.split())
