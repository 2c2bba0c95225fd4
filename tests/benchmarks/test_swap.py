"""The parts of the swap check that need no server."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from benchmarks.swap_answers import KnownRelease, count_mixed, is_mixed
from benchmarks.swap_artifacts import prefixed_feed
from benchmarks.swap_plan import ROLLBACK, Step, plan_swaps, together

ENCODERS = (Path("int8"), Path("fp32"))
INDEXES = (Path("a"), Path("b"))
KNOWN = {
    "one": KnownRelease("one", ENCODERS[0], INDEXES[0], "m-1", "i-1", "a-"),
    "two": KnownRelease("two", ENCODERS[1], INDEXES[1], "m-2", "i-2", "b-"),
}


def answer(release: str, model: str, index: str, *ad_ids: str) -> bytes:
    ads = [{"ad_id": ad_id, "score": 0.5} for ad_id in ad_ids]
    return orjson.dumps({"release": release, "model_version": model, "index_version": index, "ads": ads})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (answer("one", "m-1", "i-1", "a-1", "a-2"), False),
        (answer("two", "m-2", "i-2"), False),
        (answer("three", "m-1", "i-1", "a-1"), True),
        (answer("one", "m-2", "i-1", "a-1"), True),
        (answer("one", "m-1", "i-2", "a-1"), True),
        (answer("one", "m-1", "i-1", "a-1", "b-1"), True),
    ],
    ids=["whole", "no ads", "unknown release", "other encoder", "other index", "an ad of the other index"],
)
def test_an_answer_is_mixed_unless_all_of_it_is_of_one_known_release(body: bytes, expected: bool):
    assert is_mixed(body, KNOWN) is expected


def test_only_answers_200_are_judged():
    mixed = answer("one", "m-2", "i-1")
    assert count_mixed([200, 503, 0, 200], [mixed, b"{}", b"", answer("one", "m-1", "i-1")], KNOWN) == 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    def known_release(name: str, encoder: Path, index: Path) -> KnownRelease:
        return KnownRelease(name, encoder, index, str(encoder), str(index), f"{index.name}-")

    monkeypatch.setattr("benchmarks.swap_plan.known_release", known_release)
    return plan_swaps(known_release("first", ENCODERS[0], INDEXES[0]), ENCODERS, INDEXES, 20)


def test_each_swap_changes_the_index_and_every_fifth_the_encoder(steps: list[Step]):
    served = ["a", *(str(step.release.index) for step in steps)]
    assert all(before != after for before, after in pairwise(served))
    others = [number for number, step in enumerate(steps, start=1) if step.release.encoder == ENCODERS[1]]
    assert others == [5, 10, 12, 15]  # 12 is a rollback to 10, and 20 one to 18


def test_a_rollback_goes_back_to_the_release_before_and_follows_its_step_at_once(steps: list[Step]):
    groups = list(together(steps))
    assert [len(group) for group in groups] == [1, 1, 2] * 5
    for position, step in enumerate(steps):
        if step.way == ROLLBACK:
            assert step.release == steps[position - 2].release


def test_a_prefixed_feed_differs_in_ad_ids_only():
    lines = [{"ad_id": "us-1", "title": "Bohrer"}, {"ad_id": "us-2", "title": "Säge"}]
    feed = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    found = [json.loads(line) for line in gzip.decompress(prefixed_feed(feed, "b")).splitlines()]
    assert found == [{"ad_id": "b-us-1", "title": "Bohrer"}, {"ad_id": "b-us-2", "title": "Säge"}]
