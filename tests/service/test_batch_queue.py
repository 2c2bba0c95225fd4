"""The rules of batch forming, without threads or a real clock."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_queue import BatchPolicy, BatchQueue

NOW = 100.0


@dataclass(eq=False)
class Query:
    tokens: int = 8
    deadline: float = NOW + 1
    abandoned: bool = False


def queue_of(*queries: Query, size: int = 4, tokens: int = 64, bound: int = 100) -> BatchQueue[Query]:
    queue: BatchQueue[Query] = BatchQueue(BatchPolicy(size, tokens, bound))
    for query in queries:
        queue.put(query)
    return queue


def test_takes_what_is_there_without_waiting_for_more():
    query = Query()
    queue = queue_of(query)
    assert queue.take(NOW) == [query]
    assert queue.take(NOW) == []


def test_takes_the_oldest_first_up_to_the_batch_size():
    queries = [Query() for _ in range(6)]
    queue = queue_of(*queries, size=4)
    assert queue.take(NOW) == queries[:4]
    assert queue.take(NOW) == queries[4:]


def test_charges_every_query_at_the_longest_ones_length():
    queries = [Query(tokens=30), Query(tokens=29), Query(tokens=30)]
    queue = queue_of(*queries, tokens=64)
    assert queue.take(NOW) == queries[:2]  # three of 30 would be 90 tokens
    assert queue.take(NOW) == queries[2:]


def test_queries_of_like_length_go_together_and_the_oldest_is_never_passed_over():
    long, short = [Query(tokens=40) for _ in range(3)], [Query(tokens=5) for _ in range(3)]
    queue = queue_of(long[0], short[0], long[1], short[1], short[2], long[2], size=4, tokens=200)
    assert queue.take(NOW) == long
    assert queue.take(NOW) == short


def test_an_odd_query_waits_only_until_it_is_the_oldest():
    odd = Query(tokens=60)
    queue = queue_of(Query(), odd, *(Query() for _ in range(20)), size=4)
    assert odd not in queue.take(NOW)
    assert queue.take(NOW) == [odd]


def test_a_query_longer_than_the_token_limit_goes_alone():
    long, short = Query(tokens=500), Query(tokens=4)
    queue = queue_of(long, short, tokens=64)
    assert queue.take(NOW) == [long]
    assert queue.take(NOW) == [short]


@pytest.mark.parametrize("dropped", [Query(abandoned=True), Query(deadline=NOW)], ids=["abandoned", "expired"])
def test_what_nobody_waits_for_is_dropped_and_takes_no_place(dropped: Query):
    kept = [Query(), Query()]
    queue = queue_of(dropped, kept[0], dropped, kept[1], size=2)
    assert queue.take(NOW) == kept
    assert len(queue) == 0


def test_a_queue_of_dropped_queries_gives_an_empty_batch():
    queue = queue_of(Query(abandoned=True), Query(deadline=NOW - 1))
    assert queue.take(NOW) == []
    assert len(queue) == 0


def test_is_full_at_its_bound():
    queue = queue_of(Query(), Query(), bound=3)
    assert not queue.full(NOW)
    queue.put(Query())
    assert queue.full(NOW)


def test_what_nobody_waits_for_does_not_make_it_full():
    alive = Query()
    queue = queue_of(Query(abandoned=True), alive, Query(deadline=NOW), bound=3)
    assert not queue.full(NOW)
    assert queue.take(NOW) == [alive]


@given(
    queries=st.lists(
        st.builds(
            Query,
            tokens=st.integers(1, 80),
            deadline=st.floats(NOW - 1, NOW + 1),
            abandoned=st.booleans(),
        ),
        max_size=40,
    ),
    size=st.integers(1, 8),
    tokens=st.integers(1, 128),
)
def test_any_queue_empties_within_the_limits_with_the_oldest_first(queries: list[Query], size: int, tokens: int):
    queue = queue_of(*queries, size=size, tokens=tokens)
    left = [query for query in queries if not query.abandoned and query.deadline > NOW]
    while batch := queue.take(NOW):
        longest = max(query.tokens for query in batch)
        assert batch[0] is left[0]
        assert len(batch) <= size
        assert len(batch) == 1 or longest * len(batch) <= tokens
        places = [left.index(query) for query in batch]
        assert places == sorted(places)
        left = [query for query in left if query not in batch]
    assert left == []
