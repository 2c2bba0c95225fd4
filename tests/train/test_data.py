"""Files to rows and batches."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from artifacts.errors import HlmError
from index.feed import FeedReader
from train.data import (
    LabelledQueries,
    Pair,
    plan_pair_batches,
    plan_query_batches,
    read_inventory,
    read_lessons,
    read_split,
    read_unlabelled,
    relevant_pairs,
    weigh,
)
from train.errors import TrainError
from train.recipe import Data


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Two small sets that share an ad."""
    for name, ad_ids in (("one", ["a", "b", "c"]), ("two", ["c", "d"])):
        directory = tmp_path / name
        directory.mkdir()
        ads = [{"ad_id": ad_id, "title": f"title {ad_id}", "description": "more"} for ad_id in ad_ids]
        (directory / "ads.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, ads)).encode()))
        for split in ("train", "dev"):
            queries = f"query_id\ttext\n{name}-1\tfirst query\n{name}-2\tsecond query\n"
            (directory / f"queries.{split}.tsv").write_text(queries)
    (tmp_path / "one/qrels.train.tsv").write_text(
        "query_id\tad_id\tgrade\traw\none-1\ta\t2\t3\none-1\tb\t0\t1\none-2\tb\t1\t2\n"
    )
    (tmp_path / "one/qrels.dev.tsv").write_text("query_id\tad_id\tgrade\none-1\tc\t2\none-1\tgone\t2\n")
    (tmp_path / "two/qrels.train.tsv").write_text("query_id\tad_id\tgrade\ntwo-1\td\t2\n")
    (tmp_path / "unlabelled.tsv").write_text("text\tsource\nsofa\tshop\nlamp\ttitle-x\nsofa\tshop\n")
    return Data(train=[tmp_path / "one", tmp_path / "two"], dev=[tmp_path / "one"], queries=tmp_path / "unlabelled.tsv")


def test_the_inventory_has_each_ad_once_in_the_order_of_the_sets(data: Data):
    inventory = read_inventory(data)
    assert inventory.rows == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert inventory.texts[0] == "title a more"
    assert [json.loads(line)["ad_id"] for line in inventory.lines] == ["a", "b", "c", "d"]
    assert inventory.titles() == {"a": "title a", "b": "title b", "c": "title c", "d": "title d"}


def test_expansions_are_added_to_the_texts_of_their_ads_alone(data: Data, tmp_path: Path):
    expansions = tmp_path / "expansions.tsv"
    expansions.write_text("ad_id\ttext\nb\tgarden chair, patio seat\nelsewhere\tunused\n")
    plain, expanded = read_inventory(data), read_inventory(data.model_copy(update={"ad_expansions": expansions}))
    assert expanded.texts == [plain.texts[0], "title b more garden chair, patio seat", *plain.texts[2:]]
    assert expanded.lines == plain.lines
    expansions.write_text("ad_id\ttext\nb\tone\nb\ttwo\n")
    with pytest.raises(HlmError, match=r"expansions\.tsv:3: ad_id b came before"):
        read_inventory(data.model_copy(update={"ad_expansions": expansions}))


def test_the_feed_that_is_written_says_what_was_read(data: Data, tmp_path: Path):
    ad = {
        "ad_id": "e",
        "title": "sofa",
        "brand": "Linnwood",
        "market": ["us", "gb"],
        "status": "paused",
        "starts_at": "2026-11-01T00:00:00+01:00",
        "hours": [{"days": ["mon"], "from_hour": 9, "to_hour": 17}],
        "negative_keywords": ["used"],
        "colour": "green",
    }
    (tmp_path / "more.jsonl").write_text(json.dumps(ad))
    inventory = read_inventory(data.model_copy(update={"more_ads": [tmp_path / "more.jsonl"]}))
    assert inventory.active == [0, 1, 2, 3]
    (tmp_path / "written.jsonl").write_bytes(b"".join(inventory.lines))
    [read] = [found for _, found in FeedReader(tmp_path / "more.jsonl", strict=True)]
    assert [found for _, found in FeedReader(tmp_path / "written.jsonl", strict=True)][-1] == read


def test_splits_are_joined_and_keep_what_is_known(data: Data):
    labelled = read_split(data.train, "train", read_inventory(data))
    assert labelled.query_ids == ["one-1", "one-2", "two-1"]
    assert labelled.grades == [{0: 2, 1: 0}, {1: 1}, {3: 2}]
    assert relevant_pairs(labelled) == [Pair(0, 0), Pair(2, 3)]
    assert labelled.rows_of_grade(0, 0, 0) == [1]


def test_what_is_graded_above_2_is_asked_for_too():
    labelled = LabelledQueries(["x"], ["sofa"], [{0: 3, 1: 2, 2: 1, 3: 0}])
    assert relevant_pairs(labelled) == [Pair(0, 0), Pair(0, 1)]
    assert labelled.rows_of_grade(0, 1) == [0, 1, 2]


def test_queries_that_read_alike_teach_as_one_with_the_judgments_of_both(data: Data):
    two = data.train[1]
    (two / "queries.train.tsv").write_text("query_id\ttext\ntwo-1\tFirst  query\ntwo-2\tthird query\n")
    (two / "qrels.train.tsv").write_text("query_id\tad_id\tgrade\ntwo-1\tb\t1\ntwo-1\td\t2\ntwo-2\tc\t2\n")
    lessons = read_lessons(data, read_inventory(data))
    assert lessons.query_ids == ["one-1", "one-2", "two-2"]
    assert lessons.texts == ["first query", "second query", "third query"]
    assert lessons.grades == [{0: 2, 1: 1, 3: 2}, {1: 1}, {2: 2}]


def test_queries_that_follow_others_keep_what_is_known_of_them(data: Data):
    labelled = read_split(data.train, "train", read_inventory(data))
    both = labelled.followed_by(LabelledQueries(["x"], ["extra"], [{2: 2}]))
    assert (both.query_ids, both.texts[-1]) == (["one-1", "one-2", "two-1", "x"], "extra")
    assert both.grades == [*labelled.grades, {2: 2}]


def test_judgments_of_ads_outside_the_inventory_are_left_out(data: Data):
    labelled = read_split(data.dev, "dev", read_inventory(data))
    assert (labelled.query_ids, labelled.grades) == (["one-1"], [{2: 2}])


def test_the_same_query_id_in_two_sets_is_refused(data: Data):
    with pytest.raises(TrainError, match="query_id one-1 is in another set too"):
        read_split([data.train[0], data.train[0]], "train", read_inventory(data))


def test_unlabelled_queries_are_distinct_and_carry_their_source(data: Data):
    assert read_unlabelled(data.queries) == [("sofa", "shop"), ("lamp", "title-x")]


def test_unlabelled_queries_that_read_alike_are_one_so_that_none_is_held_out_and_learnt(tmp_path: Path):
    (tmp_path / "q.tsv").write_text(
        "text\tsource\nLED  lamp\tshop\n \tshop\nled lamp\tweb\nlamp １８v\tweb\nLamp 18V\tweb\n"
    )
    assert read_unlabelled(tmp_path / "q.tsv") == [("LED  lamp", "shop"), ("lamp １８v", "web")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("query\tsource\nsofa\tx\n", "expected the columns text and source"), ("text\tsource\nsofa\n", "each on every")],
    ids=["no column", "short line"],
)
def test_a_file_of_other_columns_is_refused(tmp_path: Path, content: str, complaint: str):
    (tmp_path / "q.tsv").write_text(content)
    with pytest.raises(TrainError, match=complaint):
        read_unlabelled(tmp_path / "q.tsv")


@pytest.mark.parametrize(
    ("source", "weight"), [("shop-wands", 3), ("title-esci", 0.5), ("title-homedepot", 0.1), ("web-other", 1)]
)
def test_the_longest_fitting_key_weighs_a_source(source: str, weight: float):
    assert weigh(source, {"shop": 3, "title": 0.5, "title-homedepot": 0.1}) == weight


def test_a_batch_of_pairs_has_no_query_and_no_ad_twice():
    pairs = [Pair(query, row) for query in range(6) for row in (query, query + 1)]
    batches = plan_pair_batches(pairs, 4, epochs=3, seed=1)
    assert len(batches) == 9
    for batch in batches:
        assert len({pair.query for pair in batch}) == len({pair.row for pair in batch}) == 4
    assert batches == plan_pair_batches(pairs, 4, epochs=3, seed=1)
    assert batches != plan_pair_batches(pairs, 4, epochs=3, seed=2)


def test_batches_that_cannot_be_filled_are_refused():
    with pytest.raises(TrainError, match="smaller batch_size"):
        plan_pair_batches([Pair(0, row) for row in range(4)], 2, epochs=1, seed=1)


def test_queries_come_as_often_as_they_weigh():
    batches = plan_query_batches([0, 1, 2.5, 0.25], 3, epochs=1000, seed=1)
    times = Counter(position for batch in batches for position in batch)
    assert times[0] == 0
    assert [times[position] / 1000 for position in (1, 2, 3)] == pytest.approx([1, 2.5, 0.25], rel=0.05)
