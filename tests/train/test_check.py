"""The look at the data: what is planted is found."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from samples.labelled import labelled_files
from train.check import Finding, check_data, show_findings
from train.errors import TrainError
from train.recipe import SHIPPED
from train.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The smoke recipe on a small set of its own."""
    for name, content in labelled_files(ad_count=300, query_count=60, unlabelled_count=200, seed=1).items():
        (tmp_path / name).write_bytes(content)
    recipe = yaml.safe_load((SHIPPED / "smoke.yaml").read_text())
    recipe["data"] = {"train": [str(tmp_path)], "dev": [str(tmp_path)], "queries": str(tmp_path / "unlabelled.tsv")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return Run.open(str(tmp_path / "recipe.yaml"), tmp_path / "runs")


def counts(run: Run) -> dict[str, int]:
    return {finding.what.partition(" (")[0]: finding.count for finding in check_data(run)}


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


def test_the_sample_set_leaks_nothing(run: Run):
    found = counts(run)
    assert found["dev queries among the train split's"] == 0
    assert found["dev queries among the unlabelled"] == 0
    assert found["train queries that are like another"] == 0
    show_findings(check_data(run))


def test_a_pipe_gets_every_finding_whole(capsys: pytest.CaptureFixture[str]):
    what = "queries cut at 32 tokens (shortest 3, median 7, p99 18, longest 41)"
    example = "garden [chair] for 12 guests"
    show_findings([Finding(what, 12, 34_567, example)])
    [line] = [line for line in capsys.readouterr().out.splitlines() if what in line]
    assert example in line


def test_what_is_wrong_is_counted(run: Run):
    directory = run.recipe.data.dev[0]
    dev = (directory / "queries.dev.tsv").read_text().splitlines()[1].split("\t")[1]
    turned = " ".join(reversed(dev.upper().split()))
    append(directory / "queries.train.tsv", f"leak\t{turned}")
    append(directory / "queries.train.tsv", f"twice\t{dev}")
    append(directory / "qrels.train.tsv", "leak\tno-such-ad\t2")
    found = counts(run)
    assert found["dev queries among the train split's"] == 1
    assert found["train queries that are like another"] == 1
    assert found["train judgments of an unknown query or ad"] == 1
    assert found["train queries without an ad of grade 2"] == 1
    with pytest.raises(TrainError, match="dev queries among the train split's: 1, for example"):
        show_findings(check_data(run))


def test_what_is_empty_or_left_out_is_counted(run: Run):
    data = run.recipe.data
    feed = data.dev[0] / "ads.jsonl.gz"
    feed.write_bytes(gzip.compress(gzip.decompress(feed.read_bytes()) + b'{"ad_id": "untitled", "title": " "}\n'))
    lines = data.queries.read_text().splitlines()
    append(data.queries, f"\tempty\n{lines[1].upper()}")
    expansions = data.queries.with_name("expansions.tsv")
    expansions.write_text("ad_id\ttext\nno-such-ad\tchair\n")
    before = counts(run)
    expanded = data.model_copy(update={"ad_expansions": expansions})
    found = counts(replace(run, recipe=run.recipe.model_copy(update={"data": expanded})))
    assert found["unlabelled queries without text"] == 1
    assert found["unlabelled queries that are like another"] >= 1
    assert [count for what, count in before.items() if what.startswith("lines of feeds left out: title")] == [1]
    assert found["expansions of an unknown ad"] == 1


def test_a_leak_among_the_unlabelled_is_found_in_any_spelling_that_reads_the_same(run: Run):
    directory = run.recipe.data.dev[0]
    append(directory / "queries.dev.tsv", "wide\t１８v cordless Drill")
    append(run.recipe.data.queries, "drill 18V cordless\tshop")
    assert counts(run)["dev queries among the unlabelled"] == 1
    with pytest.raises(TrainError, match="dev queries among the unlabelled: 1, for example"):
        show_findings(check_data(run))


def test_sets_that_number_their_queries_alike_are_all_looked_at(run: Run, tmp_path: Path):
    """Each is evaluated by itself, so their ids may be the same."""
    train = (tmp_path / "queries.train.tsv").read_text().splitlines()[1].split("\t")[1]
    first, second = ((tmp_path / name) for name in ("first", "second"))
    for directory, text in ((first, train), (second, "nothing like it")):
        directory.mkdir()
        (directory / "ads.jsonl.gz").write_bytes((tmp_path / "ads.jsonl.gz").read_bytes())
        (directory / "queries.dev.tsv").write_text(f"query_id\ttext\n1\t{text}\n")
        (directory / "qrels.dev.tsv").write_text("query_id\tad_id\tgrade\n1\tno-such-ad\t2\n")
    data = run.recipe.data.model_copy(update={"dev": [first, second]})
    found = counts(replace(run, recipe=run.recipe.model_copy(update={"data": data})))
    assert found["dev queries among the train split's"] == 1
    assert found["dev judgments of an unknown query or ad"] == 2


def test_a_text_that_is_cut_is_counted_and_a_long_one_shown(run: Run):
    before = counts(run)["queries cut at 16 tokens"]
    append(run.recipe.data.queries, f"{'sofa ' * 40}\tshop")
    [found] = [finding for finding in check_data(run) if finding.what.startswith("queries cut")]
    assert found.count == before + 1
    assert "longest 42" in found.what  # with a token at either end
    assert found.example.startswith("sofa sofa")


def test_a_teacher_without_a_tokenizer_is_refused_in_one_sentence(run: Run, tmp_path: Path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"")
    teacher = run.recipe.teacher.model_copy(update={"model": str(tmp_path / "bare")})
    with pytest.raises(TrainError, match=r"bare: its tokenizer cannot be loaded"):
        check_data(replace(run, recipe=run.recipe.model_copy(update={"teacher": teacher})))
