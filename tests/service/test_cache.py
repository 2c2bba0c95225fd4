"""What is kept of earlier requests, and what is not computed twice."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ad_index import SearchHits
from index.ads import AdTable, AdTableBuilder
from index.filters import NO_FILTERS, Filters, Wanted
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.cache import ENTRY_BYTES, EmbeddingCache, EmbeddingKey, ResultCache, ResultKey
from service.errors import RequestError
from service.pipeline import Found, Query, make_pipeline
from service.release import Release

DIM = 8
ENTRY = ENTRY_BYTES + DIM * 4 + 5
"""Of an entry with a text of five letters."""


def key(text: str, model_version: str = "m1") -> EmbeddingKey:
    return EmbeddingKey(model_version, text)


def embedding(number: float = 1.0) -> NDArray[np.float32]:
    return np.full(DIM, number, dtype=np.float32)


# --- embeddings -----------------------------------------------------------------------------------------------------


def test_an_embedding_comes_back_for_its_text_and_its_encoder_alone():
    cache = EmbeddingCache(10 * ENTRY)
    cache.put(key("drill"), embedding(2))
    assert np.array_equal(cast("Any", cache.get(key("drill"))), embedding(2))
    assert cache.get(key("mouse")) is None
    assert cache.get(key("drill", "m2")) is None


def test_the_bound_in_bytes_holds_whatever_is_put():
    cache = EmbeddingCache(20 * ENTRY)
    random = np.random.default_rng(1)
    for number, length in enumerate(random.integers(1, 300, 500)):
        cache.put(key(f"{number}" + "x" * int(length)), embedding())
        assert cache.bytes <= 20 * ENTRY
    assert 8 <= len(cache) <= 20


def test_texts_are_charged_by_their_bytes():
    cache = EmbeddingCache(10 * ENTRY)
    cache.put(key("drill"), embedding())
    assert cache.bytes == ENTRY
    cache.put(key("säge5"), embedding())
    assert cache.bytes == 2 * ENTRY + 1


def test_what_was_not_used_for_longest_goes_first():
    cache = EmbeddingCache(3 * ENTRY)
    for text in ("first", "secnd", "third"):
        cache.put(key(text), embedding())
    cache.get(key("first"))
    cache.put(key("forth"), embedding())
    kept = [text for text in ("first", "secnd", "third", "forth") if cache.get(key(text)) is not None]
    assert kept == ["first", "third", "forth"]


@pytest.mark.parametrize("max_bytes", [0, ENTRY - 1], ids=["off", "smaller than an entry"])
def test_what_does_not_fit_is_not_kept(max_bytes: int):
    cache = EmbeddingCache(max_bytes)
    cache.put(key("drill"), embedding())
    assert (len(cache), cache.bytes, cache.enabled) == (0, 0, max_bytes > 0)


def test_a_row_is_kept_without_the_batch_that_it_came_in():
    cache = EmbeddingCache(10 * ENTRY)
    batch = np.ones((1_000, DIM), dtype=np.float32)
    cache.put(key("drill"), batch[3])
    batch[3] = 0
    kept = cache.get(key("drill"))
    assert kept is not None
    assert kept.base is None
    assert np.array_equal(kept, embedding(1))


def test_threads_do_not_break_the_bound():
    cache = EmbeddingCache(50 * ENTRY)

    def hammer(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 200, 3_000):
            if cache.get(key(f"{number:05}")) is None:
                cache.put(key(f"{number:05}"), embedding(number))

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == len(cache) * ENTRY <= 50 * ENTRY
    for number in range(200):
        kept = cache.get(key(f"{number:05}"))
        assert kept is None or kept[0] == number


# --- results --------------------------------------------------------------------------------------------------------


class FakeIndex:
    """Finds the same three ads for everyone, of which some may no longer be shown."""

    def __init__(self) -> None:
        builder = AdTableBuilder()
        for ad_id in ("a1", "a2", "a3"):
            builder.append(ad_id, {"title": ad_id})
        self.ads: AdTable = builder.build()
        self.shown = {0, 1, 2}
        self.searched: list[tuple[float, float]] = []
        """First component of each embedding that was searched with, and the effort."""

    def hits(self) -> SearchHits:
        return SearchHits(np.array([2, 0, 1]), np.array([0.9, 0.8, 0.7], dtype=np.float32), self.ads)

    def still_eligible(self, hits: SearchHits, wanted: Wanted) -> SearchHits:
        keep = np.isin(hits.rows, list(self.shown))
        return SearchHits(hits.rows[keep], hits.scores[keep], hits.ads)

    def search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        self.searched += zip(embeddings[:, 0].tolist(), [one.effort for one in wanted], strict=True)
        return [self.hits() for _ in wanted]


class CountingEncoder:
    """Counts what it encodes, and waits at its gate; an embedding says the length of its text."""

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, token_ids: Sequence[list[int]]) -> NDArray[np.float32]:
        self.encoded += [list(ids) for ids in token_ids]
        assert self.gate.wait(30)
        return np.stack([embedding(len(ids)) for ids in token_ids])


def release_of(name: str, index: FakeIndex | None = None, encoder: CountingEncoder | None = None) -> Release:
    return Release(name, cast("Any", encoder or CountingEncoder()), cast("Any", index or FakeIndex()), "m1", "i1")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_result_is_used_again_until_its_time_is_over():
    clock, index = Clock(), FakeIndex()
    cache, result = ResultCache(0.5, clock), ResultKey(release_of("r", index), "drill", 3, NO_FILTERS)
    cache.put(result, index.hits())
    clock.now += 0.49
    found = cache.get(result, Wanted(3))
    assert found is not None
    assert found.ad_ids == ["a3", "a1", "a2"]
    clock.now += 0.02
    assert cache.get(result, Wanted(3)) is None


@pytest.mark.parametrize("change", ["release", "text", "top_k", "filters"])
def test_a_result_is_that_of_all_that_was_asked_for(change: str):
    index = FakeIndex()
    cache, result = ResultCache(1.0, Clock()), ResultKey(release_of("r", index), "drill", 3, NO_FILTERS)
    cache.put(result, index.hits())
    others: dict[str, Any] = {
        "release": release_of("r", index),
        "text": "drills",
        "top_k": 2,
        "filters": Filters(device="tv"),
    }
    assert cache.get(result._replace(**{change: others[change]}), Wanted(3)) is None


def test_an_ad_that_may_not_be_shown_any_more_makes_a_new_search():
    """Rather than an answer with an ad less than there would be."""
    index = FakeIndex()
    cache, result = ResultCache(1.0, Clock()), ResultKey(release_of("r", index), "drill", 3, NO_FILTERS)
    cache.put(result, index.hits())
    index.shown.remove(0)
    assert cache.get(result, Wanted(3)) is None
    index.shown.add(0)
    assert cache.get(result, Wanted(3)) is None
    assert len(cache) == 0


def test_a_result_that_holds_for_one_request_id_alone_is_not_kept():
    index = FakeIndex()
    cache, result = ResultCache(1.0, Clock()), ResultKey(release_of("r", index), "drill", 3, NO_FILTERS)
    cache.put(result, replace(index.hits(), for_others=False))
    assert cache.get(result, Wanted(3)) is None


def test_results_are_off_at_zero_and_forgotten_with_their_release():
    index = FakeIndex()
    assert not ResultCache(0.0).enabled
    release = release_of("r", index)
    cache, result = ResultCache(1.0, Clock()), ResultKey(release, "drill", 3, NO_FILTERS)
    cache.put(result, index.hits())
    cache.retire(release)
    assert cache.get(result, Wanted(3)) is None
    cache.put(result, index.hits())  # by a request that was still in flight
    assert cache.get(result, Wanted(3)) is None


# --- one computation for all who want the same ----------------------------------------------------------------------


def query_for(
    release: Release, text: str, *, embedded: bool = False, effort: float = 1.0, shared: bool = True
) -> Query:
    return Query(
        release=release,
        embedding_key=key(text),
        token_ids=[] if embedded else [1] * len(text),
        embedding=embedding(len(text)) if embedded else None,
        wanted=Wanted(3, effort=effort),
        fields=["title"],
        caller="caller",
        shared=shared,
    )


def nobody() -> None:
    """Waits for the encoder."""


def test_the_encoder_is_free_once_a_batch_is_encoded_and_before_it_is_searched():
    encoder, index = CountingEncoder(), FakeIndex()
    seen: list[tuple[int, int]] = []
    run = make_pipeline(EmbeddingCache(0))
    run(
        [query_for(release_of("r", index, encoder), "drill")],
        lambda: seen.append((len(encoder.encoded), len(index.searched))),
    )
    assert seen == [(1, 0)]


def test_like_queries_of_a_batch_are_encoded_once_and_each_is_searched():
    encoder, index = CountingEncoder(), FakeIndex()
    release = release_of("r", index, encoder)
    queries = [query_for(release, text) for text in ("drill", "mouse pad", "drill")]
    found, cost = make_pipeline(EmbeddingCache(10 * ENTRY))(queries, nobody)
    assert [len(ids) for ids in encoder.encoded] == [5, 9]
    assert [one.embedding[0] for one in found if one.embedding is not None] == [5, 9, 5]
    assert (cost.lengths, cost.queries) == ([5, 9], 3)
    assert index.searched == [(5.0, 1.0), (9.0, 1.0), (5.0, 1.0)]
    assert found[0].columns == {"title": ["a3", "a1", "a2"]}


def test_what_was_encoded_is_known_to_the_next_batch_and_to_no_other_encoder():
    encoder = CountingEncoder()
    run = make_pipeline(EmbeddingCache(10 * ENTRY))
    run([query_for(release_of("r", encoder=encoder), "drill")], nobody)
    _, cost = run([query_for(release_of("other index", encoder=encoder), "drill")], nobody)
    assert len(encoder.encoded) == 1
    assert (cost.lengths, cost.encode_s >= 0) == ([], True)
    other = query_for(release_of("r", encoder=encoder), "drill")
    other.embedding_key = key("drill", "m2")
    run([other], nobody)
    assert len(encoder.encoded) == 2


def test_without_a_cache_every_batch_is_encoded():
    encoder = CountingEncoder()
    run = make_pipeline(EmbeddingCache(0))
    for _ in range(2):
        run([query_for(release_of("r", encoder=encoder), "drill", shared=False)], nobody)
    assert len(encoder.encoded) == 2


def test_queries_with_an_embedding_join_those_without():
    encoder, index = CountingEncoder(), FakeIndex()
    release = release_of("r", index, encoder)
    run = make_pipeline(EmbeddingCache(10 * ENTRY))
    run([query_for(release, "mouse", embedded=True), query_for(release, "cordless drill")], nobody)
    assert [len(ids) for ids in encoder.encoded] == [14]
    assert index.searched == [(5.0, 1.0), (14.0, 1.0)]


def test_queries_of_one_batch_may_spend_different_efforts():
    index = FakeIndex()
    release = release_of("r", index)
    queries = [query_for(release, "x" * length, effort=effort) for length, effort in ((3, 1.0), (4, 0.6), (5, 1.0))]
    found, _ = make_pipeline(EmbeddingCache(0))(queries, nobody)
    assert index.searched == [(3.0, 1.0), (4.0, 0.6), (5.0, 1.0)]
    assert [one.embedding[0] for one in found if one.embedding is not None] == [3, 4, 5]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_concurrent_misses_of_one_query_are_encoded_once(workers: int):
    encoder = CountingEncoder()
    release = release_of("r", encoder=encoder)
    run = make_pipeline(EmbeddingCache(100 * ENTRY))

    async def scenario() -> list[Found | RequestError]:
        batcher: MicroBatcher[Query, Found] = MicroBatcher(run, BatchPolicy(4, 1_000, 1_000), workers)
        batcher.start()
        loop = asyncio.get_running_loop()
        encoder.gate.clear()
        outcomes: list[asyncio.Future[Found | RequestError]] = []
        for number in range(40):
            outcomes.append(loop.create_future())
            query = query_for(release, ("drill", "mouse pad")[number % 2])
            batcher.submit(query, deadline=perf_counter() + 60, on_done=outcomes[-1].set_result)
            await asyncio.sleep(0)  # the workers may look at the queue between any two
        encoder.gate.set()
        try:
            return await asyncio.wait_for(asyncio.gather(*outcomes), 60)
        finally:
            await batcher.stop()

    found = asyncio.run(scenario())
    assert sorted(len(ids) for ids in encoder.encoded) == [5, 9]
    lengths = [one.embedding[0] for one in found if isinstance(one, Found) and one.embedding is not None]
    assert lengths == [5, 9] * 20
