"""The rules of batch forming, without threads or a real clock."""

from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_queue import SCANNED_PER_PLACE, Backlog, BatchPolicy, BatchQueue
from service.shapes import ShapeCosts, shapes_of

NOW = 100.0


@dataclass(eq=False)
class Query:
    tokens: int = 8
    deadline: float = NOW + 1
    abandoned: bool = False
    caller: Hashable = "caller"
    group: Hashable = "release"
    key: Hashable = None


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


def test_queries_of_one_length_keep_their_order_when_the_batch_grows_longer():
    """The second of 14 would fit once that of 13 is in; the first did not fit before."""
    lengths = [11, 14, 13, 14]
    queries = [Query(tokens=tokens) for tokens in lengths]
    queue = queue_of(*queries)
    assert queue.take(NOW) == [queries[0], queries[2]]
    assert queue.take(NOW) == [queries[1], queries[3]]


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


def test_those_nobody_waits_for_hide_none_of_those_behind_them():
    kept = Query()
    queue = queue_of(*(Query(abandoned=True) for _ in range(200)), kept, size=2, bound=1_000)
    assert queue.take(NOW) == [kept]


def test_a_query_that_cannot_be_answered_in_time_any_more_is_dropped():
    late, kept = Query(deadline=NOW + 0.01), Query(deadline=NOW + 0.011)
    queue = queue_of(late, kept)
    assert queue.take(NOW, least_s=0.01) == [kept]
    assert len(queue) == 0


# --- callers --------------------------------------------------------------------------------------------------------


def of(caller: str, count: int, **fields: int) -> list[Query]:
    return [Query(caller=caller, **fields) for _ in range(count)]


def test_a_light_callers_query_is_in_the_next_batch_whatever_another_has_queued():
    flood, light = of("flood", 90), Query(caller="light")
    queue = queue_of(*flood, light, size=4)
    assert queue.take(NOW) == [flood[0], light, flood[1], flood[2]]


def test_a_light_callers_query_of_another_length_leads_the_batch_after():
    flood, light = of("flood", 90, tokens=6), Query(caller="light", tokens=60)
    queue = queue_of(*flood, light, size=4)
    assert queue.take(NOW) == flood[:4]
    assert queue.take(NOW) == [light]


def test_callers_who_ask_for_the_same_get_the_same():
    queue = queue_of(*of("a", 30), *of("b", 30), *of("c", 30), size=4)
    served = [query.caller for _ in range(15) for query in queue.take(NOW)]
    assert sorted(map(served.count, "abc")) == [20, 20, 20]


def test_a_query_of_another_length_leads_in_its_callers_turn_though_younger_ones_went_before():
    odd = Query(caller="b", tokens=60)
    queue = queue_of(*of("a", 40), *of("c", 40), odd, *of("b", 40), size=6)
    assert [odd in queue.take(NOW) for _ in range(2)] == [False, True]


def test_a_caller_who_comes_back_waits_for_its_turn_again():
    a, b = of("a", 2), of("b", 2)
    queue = queue_of(a[0], b[0], b[1], size=1)
    assert queue.take(NOW) == [a[0]]
    queue.put(a[1])
    assert [queue.take(NOW) for _ in range(3)] == [[b[0]], [a[1]], [b[1]]]


def test_a_caller_may_hold_as_many_places_as_it_leaves_free():
    queue = queue_of(bound=12)
    places = {}
    for caller in ("first", "second", "third"):
        while not queue.full(caller, NOW):
            queue.put(Query(caller=caller))
            places[caller] = places.get(caller, 0) + 1
    assert places == {"first": 6, "second": 3, "third": 2}
    assert not queue.full("fourth", NOW)


def test_what_nobody_waits_for_takes_no_place():
    alive = Query()
    queue = queue_of(Query(abandoned=True), alive, Query(deadline=NOW), bound=4)
    assert not queue.full("caller", NOW)
    assert len(queue) == 1
    assert queue.take(NOW) == [alive]


def test_a_caller_gets_its_places_back():
    queue = queue_of(*of("caller", 3), bound=6)
    assert queue.full("caller", NOW)
    queue.take(NOW)
    assert not queue.full("caller", NOW)


@pytest.mark.parametrize(
    ("caller", "count"),
    [("a", 5 + 3 + 1), ("b", 4 + 3 + 1), ("new", 1 + 1 + 1)],
    ids=["who has most", "who has some", "who has none"],
)
def test_those_ahead_of_a_newcomer_are_those_whose_turns_come_before(caller: str, count: int):
    queue = queue_of(*of("a", 5), *of("b", 3), *of("c", 1))
    assert queue.ahead_of(caller) == Backlog(count, count * 8.0)


def test_nothing_is_ahead_in_an_empty_queue():
    queue = queue_of(Query())
    queue.take(NOW)
    assert queue.ahead_of("caller") == Backlog(0, 0.0)


# --- releases and embeddings ----------------------------------------------------------------------------------------


def test_a_batch_is_of_one_group():
    old, new = [Query(group="old") for _ in range(2)], [Query(group="new") for _ in range(2)]
    queue = queue_of(old[0], new[0], old[1], new[1])
    assert queue.take(NOW) == old
    assert queue.take(NOW) == new


def test_a_query_whose_embedding_is_being_made_waits_for_it():
    twin, other = Query(key="drill"), Query(key="mouse")
    queue = queue_of(twin, other)
    assert queue.take(NOW, encoding={"drill"}) == [other]
    assert queue.take(NOW, encoding={"drill"}) == []
    assert queue.take(NOW) == [twin]


def test_a_query_with_an_embedding_needs_not_wait_for_anothers():
    cached = Query(tokens=0, key="drill")
    assert queue_of(cached).take(NOW, encoding={"drill"}) == [cached]


def test_queries_with_an_embedding_join_any_batch_and_add_no_padding():
    long, cached, short = Query(tokens=60), [Query(tokens=0), Query(tokens=0)], Query(tokens=5)
    queue = queue_of(long, cached[0], short, cached[1], tokens=64)
    assert queue.take(NOW) == [long, *cached]
    assert queue.take(NOW) == [short]


def test_a_query_with_an_embedding_that_leads_says_nothing_of_the_length():
    cached, long = Query(tokens=0), [Query(tokens=30), Query(tokens=30)]
    queue = queue_of(cached, *long, tokens=64)
    assert queue.take(NOW) == [cached, *long]


def test_only_so_many_are_looked_at_for_a_batch():
    near, far = Query(tokens=5), Query(tokens=5)
    size = 2
    odd = of("caller", size * SCANNED_PER_PLACE - 2, tokens=50)
    assert queue_of(near, *odd, far, size=size).take(NOW) == [near, far]
    assert queue_of(near, *odd, Query(tokens=50), far, size=size).take(NOW) == [near]
    callers = [Query(tokens=50, caller=number) for number in range(size * SCANNED_PER_PLACE - 1)]
    assert queue_of(near, *callers, far, size=size).take(NOW) == [near]


# --- any queue ------------------------------------------------------------------------------------------------------


def first_of(queries: list[Query], caller: Hashable) -> Query | None:
    return next((query for query in queries if query.caller == caller), None)


@given(
    queries=st.lists(
        st.builds(
            Query,
            tokens=st.integers(0, 80),
            caller=st.sampled_from("abc"),
            group=st.sampled_from(["old", "new"]),
            deadline=st.floats(NOW - 1, NOW + 1),
            abandoned=st.booleans(),
        ),
        max_size=40,
    ),
    size=st.integers(1, 8),
    tokens=st.integers(1, 128),
)
def test_any_queue_empties_within_the_limits_each_caller_in_turn_and_in_order(
    queries: list[Query], size: int, tokens: int
):
    queue = queue_of(*queries, size=size, tokens=tokens)
    left = [query for query in queries if not query.abandoned and query.deadline > NOW]
    turns = list(dict.fromkeys(query.caller for query in queries))
    while batch := queue.take(NOW):
        lengths = [query.tokens for query in batch if query.tokens]
        assert len(batch) <= size
        assert len(lengths) <= 1 or max(lengths) * len(lengths) <= tokens
        assert len({query.group for query in batch}) == 1
        leader = next(caller for caller in turns if first_of(left, caller))
        assert batch[0] is first_of(left, leader)
        served = [query.caller for query in batch]
        moved = [caller for caller in dict.fromkeys(served) if first_of(left, caller) in batch]
        for caller in set(turns):
            places = [left.index(query) for query in batch if query.caller == caller]
            assert places == sorted(places)
        left = [query for query in left if query not in batch]
        turns = [caller for caller in turns if caller not in moved] + sorted(moved, key=served.count)
    assert left == []
    assert len(queue) == 0


def test_on_a_device_lengths_go_together_where_one_run_costs_no_more_than_two():
    queries = [Query(tokens=5), Query(tokens=30), Query(tokens=6), Query(tokens=5)]
    shapes = shapes_of((1, 2, 4), (8,), 32)
    queue = queue_of(*queries, size=4, tokens=1_000)
    queue.adapt(BatchPolicy(4, 1_000, 100, ShapeCosts(dict.fromkeys(shapes, 1e-3))))  # launches are all that costs
    assert queue.take(NOW) == queries
    queue = queue_of(*queries, size=4, tokens=1_000)
    queue.adapt(BatchPolicy(4, 1_000, 100, ShapeCosts({shape: shape.batch * shape.length / 1e6 for shape in shapes})))
    assert queue.take(NOW) == [queries[0], queries[2]]  # a third would take a shape of four rows
    assert queue.take(NOW) == [queries[1]]
    assert queue.take(NOW) == [queries[3]]
