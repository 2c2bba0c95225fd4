"""The made-up labelled set."""

import gzip
import json

from samples.labelled import labelled_files

FILES = labelled_files(ad_count=600, query_count=120, unlabelled_count=500, seed=1)


def table(name: str) -> list[list[str]]:
    return [line.split("\t") for line in FILES[name].decode().splitlines()[1:]]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    assert labelled_files(600, 120, 500, seed=1) == FILES
    assert labelled_files(600, 120, 500, seed=2) != FILES


def test_every_query_has_a_right_ad_and_every_judged_ad_is_there():
    ads = {json.loads(line)["ad_id"]: json.loads(line) for line in gzip.decompress(FILES["ads.jsonl.gz"]).splitlines()}
    for split, count in (("train", 90), ("dev", 30)):
        queries, qrels = dict(table(f"queries.{split}.tsv")), table(f"qrels.{split}.tsv")
        assert len(queries) == count
        assert {query_id for query_id, _, grade in qrels if grade == "2"} == set(queries)
        assert {ads[ad_id]["status"] for _, ad_id, _ in qrels} == {"active"}


def test_a_right_ad_is_of_the_product_that_the_query_names():
    ads = {json.loads(line)["ad_id"]: json.loads(line) for line in gzip.decompress(FILES["ads.jsonl.gz"]).splitlines()}
    queries = dict(table("queries.train.tsv"))
    for query_id, ad_id, grade in table("qrels.train.tsv"):
        product = ads[ad_id]["category"].partition(" > ")[2].lower()
        assert (product in queries[query_id]) == (grade != "0")


def test_no_unlabelled_query_has_the_words_of_a_dev_query():
    held = {tuple(sorted(text.split())) for _, text in table("queries.dev.tsv")}
    unlabelled = [text for text, _ in table("unlabelled.tsv")]
    assert not held & {tuple(sorted(text.split())) for text in unlabelled}
    assert len(unlabelled) == len(set(unlabelled)) == 500
