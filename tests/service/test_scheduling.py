"""What the scheduler promises, over simulated hours of arrivals; all random numbers are seeded."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from service.admission import Admission
from service.cost import BatchCost
from service.schedule import Batch, Schedule
from service.settings import OverloadSettings
from tests.service.simulation import POLICY, Query, Simulation, bursts, capacity, poisson

HOUR = 3_600.0
BUDGET_S = 2.0
"""What 100 ms are to an encoder twenty times as fast."""
CAPACITY = capacity()


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def hour(request: pytest.FixtureRequest) -> tuple[Simulation, list[Query]]:
    """An hour at nine tenths of capacity from three callers, one of whom comes in bursts; nobody is in a hurry."""
    simulation = Simulation(workers=request.param)
    rate = 0.3 * CAPACITY * request.param
    queries = [
        *poisson(rate, HOUR, caller="a", seed=1),
        *poisson(rate, HOUR, caller="b", seed=2),
        *bursts(rate, HOUR, caller="in bursts", size=50, seed=3),
    ]
    simulation.run(queries)
    return simulation, queries


def test_everyone_is_served(hour: tuple[Simulation, list[Query]]):
    _, queries = hour
    assert len(queries) > 100_000
    assert all(query.answered is not None for query in queries)


def test_nobody_waits_for_more_than_the_batches_of_those_before(hour: tuple[Simulation, list[Query]]):
    """A query leads a batch at the latest when its caller's older ones have, and the others once for each of those."""
    _, queries = hour
    callers = 3
    assert all(query.batches_before <= (query.own_ahead + 1) * callers for query in queries)
    assert max(query.batches_before for query in queries) > callers  # the bound was put to the test


def test_batches_keep_their_limits(hour: tuple[Simulation, list[Query]]):
    simulation, _ = hour
    for batch in simulation.batches:
        lengths = [query.tokens for query in batch.items]
        assert 1 <= len(lengths) <= POLICY.max_batch_size
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= POLICY.max_batch_tokens
    assert max(len(batch.items) for batch in simulation.batches) == POLICY.max_batch_size


def test_one_callers_queries_of_one_length_are_served_in_order(hour: tuple[Simulation, list[Query]]):
    simulation, _ = hour
    served = defaultdict(list)
    for batch in simulation.batches:
        for query in batch.items:
            served[query.caller, query.tokens].append(query.arrived)
    assert all(arrivals == sorted(arrivals) for arrivals in served.values())


def test_lengths_go_together(hour: tuple[Simulation, list[Query]]):
    """As many tokens of padding as when nobody looks at lengths would be a good third of all."""
    simulation, _ = hour
    lengths = [[query.tokens for query in batch.items] for batch in simulation.batches if len(batch.items) > 1]
    padded = sum(max(batch) * len(batch) for batch in lengths)
    assert 1 - sum(map(sum, lengths)) / padded < 0.1


# --- callers --------------------------------------------------------------------------------------------------------


def test_callers_with_the_same_demand_get_the_same_while_there_is_too_little():
    simulation = Simulation(admission=Admission(()))
    callers = [poisson(CAPACITY, 600, caller=caller, budget_s=BUDGET_S, seed=caller) for caller in range(4)]
    simulation.run([query for queries in callers for query in queries])
    in_time = [sum(query.in_time for query in queries) for queries in callers]
    assert max(in_time) <= 1.05 * min(in_time)


def test_a_caller_gets_its_fair_share_however_much_another_asks_for():
    """Half of the capacity each at most; who asks for a fifth gets it, and the other gets the rest."""
    simulation = Simulation(admission=Admission(()))
    light = poisson(CAPACITY / 5, 600, caller="light", budget_s=BUDGET_S, seed=1)
    flood = poisson(CAPACITY * 10, 600, caller="flood", budget_s=BUDGET_S, seed=2)
    end = simulation.run(light + flood)
    assert sum(query.in_time for query in light) >= 0.97 * len(light)
    assert sum(query.in_time for query in light + flood) / end >= 0.9 * CAPACITY


def p99(queries: Sequence[Query]) -> float:
    return float(np.percentile([query.answered - query.arrived for query in queries if query.answered], 99))


def test_a_flood_ten_times_as_heavy_delays_a_light_caller_by_two_batches_at_most():
    """By the one under way and by the one that the flood's turn is for; with a common queue it would be hundreds."""
    alone = poisson(CAPACITY / 8, HOUR / 3, caller="light", seed=1)
    Simulation().run(alone)
    beside = poisson(CAPACITY / 8, HOUR / 3, caller="light", seed=1)
    flood = poisson(CAPACITY * 10 / 8, HOUR / 3, caller="flood", seed=2)
    flooded = Simulation(admission=Admission(()))
    flooded.run(beside + flood)
    assert any(query.predicted_s is None for query in flood)  # it had filled its share of the queue
    assert all(query.answered is not None for query in beside)
    longest_s = max(batch.predicted_s for batch in flooded.batches)
    assert p99(flood) > 5
    assert p99(beside) <= p99(alone) + 2 * longest_s


# --- deadlines and overload -----------------------------------------------------------------------------------------


def overloaded(
    times: float, seconds: float = 300, steps: OverloadSettings | None = None
) -> tuple[Simulation, float, list[Query]]:
    simulation = Simulation(admission=Admission(steps.steps if steps else ()))
    queries = poisson(times * CAPACITY, seconds, budget_s=BUDGET_S, seed=3)
    return simulation, simulation.run(queries), queries


@pytest.mark.parametrize("steps", [None, OverloadSettings()], ids=["no steps", "default steps"])
@pytest.mark.parametrize("times", [2, 5, 10])
def test_under_overload_nearly_all_capacity_goes_into_answers_that_are_in_time(
    times: float, steps: OverloadSettings | None
):
    _, end, queries = overloaded(times, steps=steps)
    admitted = [query for query in queries if query.predicted_s is not None]
    assert sum(query.in_time for query in queries) / end >= 0.93 * CAPACITY
    assert sum(query.in_time for query in admitted) >= 0.98 * len(admitted)
    encoded_in_vain = sum(query.answered is not None and not query.in_time for query in admitted)
    assert encoded_in_vain <= 0.005 * len(admitted)


def test_nothing_is_encoded_that_has_expired_or_that_nobody_waits_for():
    simulation, _, queries = overloaded(3)
    assert all(batch.started_at < query.deadline for batch in simulation.batches for query in batch.items)
    assert any(query.predicted_s is not None and query.started is None for query in queries)  # some did expire


def test_with_time_to_spare_nobody_is_refused():
    simulation = Simulation(admission=Admission(()))
    queries = poisson(CAPACITY / 2, HOUR, budget_s=BUDGET_S, seed=4)
    simulation.run(queries)
    assert sum(query.in_time for query in queries) >= 0.9999 * len(queries)


def test_after_an_overload_all_is_well_within_the_time_of_one_request():
    simulation = Simulation(admission=Admission(OverloadSettings().steps))
    flood = poisson(10 * CAPACITY, 60, budget_s=BUDGET_S, seed=5)
    usual = poisson(CAPACITY / 2, 60, budget_s=BUDGET_S, seed=6, start=60)
    simulation.run(flood + usual)
    later = [query for query in usual if query.arrived > 60 + BUDGET_S]
    assert all(query.in_time for query in later)


def test_a_hiccup_at_rest_has_no_patient_query_refused():
    """The error is long for the query that it hit, and nothing to those who give a hundred times as much."""
    simulation = Simulation(admission=Admission(OverloadSettings().steps), stall=(10, 10.0))
    before = poisson(0.05 * CAPACITY, 21, budget_s=100 * BUDGET_S, seed=3)
    burst = [Query(21.0, "burst", 20, 21.0 + 100 * BUDGET_S) for _ in range(60)]
    simulation.run(before + burst)
    assert all(query.in_time for query in before + burst)


@pytest.mark.parametrize(("load", "soon_s"), [(0.05, 240), (0.5, 30), (0.9, 30)], ids=["idle", "usual", "busy"])
def test_a_stall_is_forgotten_soon(load: float, soon_s: float):
    """What a worker that stood still taught, and those who had the patience to wait, must not refuse all later ones."""
    begins, lasts = 60, 200 * BUDGET_S
    ends = begins + lasts
    simulation = Simulation(admission=Admission(OverloadSettings().steps), stall=(begins, lasts))
    queries = poisson(load * CAPACITY, ends + soon_s + 120, budget_s=BUDGET_S, seed=7)
    patient = poisson(0.2, ends, caller="patient", budget_s=HOUR, seed=8)
    simulation.run(queries + patient)
    assert not any(query.in_time for query in queries if begins + BUDGET_S < query.arrived < ends - BUDGET_S)
    later = [query for query in queries if query.arrived > ends + soon_s]
    assert len(later) > 100
    assert sum(query.in_time for query in later) >= 0.98 * len(later)


# --- what a newcomer would find -------------------------------------------------------------------------------------


def schedule_that_knows(workers: int = 1, batches_in_flight: int | None = None) -> Schedule[Query]:
    """One that has learned that a batch takes 1 s, a token 0.1 s and a query 0.01 s."""
    schedule: Schedule[Query] = Schedule(POLICY, workers, batches_in_flight)
    for tokens in (5, 10, 20):
        schedule.learn(BatchCost([tokens], 1 + 0.1 * tokens, 1, 0.01))
    return schedule


def a_query(tokens: int = 8, caller: str = "caller", deadline: float = 100.0) -> Query:
    return Query(0.0, caller, tokens, deadline)


def test_an_idle_schedule_predicts_what_a_query_takes_by_itself():
    schedule = schedule_that_knows()
    forecast = schedule.forecast("caller", 0.0, cached=False)
    assert (forecast.full, forecast.idle) == (False, True)
    assert forecast.predicted_s == pytest.approx(1 + 0.8 + 0.01)
    assert schedule.forecast("caller", 0.0, cached=True).predicted_s == pytest.approx(0.01)


def test_a_newcomer_waits_for_the_rest_of_what_runs_and_for_those_before():
    schedule = schedule_that_knows()
    schedule.put(a_query(20))
    batch = schedule.take(0.0)
    assert batch is not None
    assert batch.predicted_s == pytest.approx(3.01)
    assert schedule.forecast("caller", 2.0, cached=False).predicted_s == pytest.approx(1.01 + 1.81)
    schedule.put(a_query(10))
    forecast = schedule.forecast("caller", 2.0, cached=False)
    assert not forecast.idle
    assert forecast.predicted_s == pytest.approx(1.01 + (1 + 1 + 0.01) + 1.81)
    schedule.ended(batch)
    assert schedule.running == 0


def test_while_a_worker_is_idle_a_newcomer_does_not_wait():
    schedule = schedule_that_knows(workers=2)
    schedule.put(a_query())
    schedule.take(0.0)
    assert schedule.forecast("caller", 0.0, cached=False).idle
    schedule.put(a_query())
    assert not schedule.forecast("caller", 0.0, cached=False).idle


def test_a_caller_that_has_used_up_its_places_is_told_so_and_others_are_not():
    schedule = schedule_that_knows()
    for _ in range(POLICY.max_queue_size // 2):
        schedule.put(a_query(caller="flood"))
    assert schedule.forecast("flood", 0.0, cached=False).full
    assert not schedule.forecast("light", 0.0, cached=False).full


def test_a_lone_query_is_tried_whatever_is_predicted():
    """Otherwise nothing better could be learned after a stall; of several, none is encoded in vain."""
    schedule = schedule_that_knows()
    lone = a_query(deadline=0.5)
    schedule.put(lone)
    batch = schedule.take(0.0)
    assert batch is not None
    assert batch.items == [lone]
    for _ in range(2):
        schedule.put(a_query(deadline=0.5))
    assert schedule.take(0.0) is None
    assert len(schedule) == 0


def test_the_twin_of_a_query_that_is_being_encoded_waits_for_its_embedding():
    schedule = schedule_that_knows(workers=2)
    twins = [Query(0.0, "caller", 8, 100.0, key="drill") for _ in range(2)]
    schedule.put(twins[0])
    batch = schedule.take(0.0)
    assert batch is not None
    schedule.put(twins[1])
    assert schedule.take(0.0) is None
    schedule.ended(batch)
    again = schedule.take(0.0)
    assert again is not None
    assert again.items == [twins[1]]


# --- where a device encodes -----------------------------------------------------------------------------------------


def taken(schedule: Schedule[Query]) -> Batch[Query]:
    batch = schedule.take(0.0)
    assert batch is not None
    return batch


def test_no_more_batches_are_encoded_at_once_than_the_device_has_places():
    schedule = schedule_that_knows(workers=3, batches_in_flight=1)
    first, second = a_query(), a_query()
    schedule.put(first)
    batch = taken(schedule)
    schedule.put(second)
    assert schedule.take(0.0) is None
    schedule.encoded(batch)
    assert schedule.running == 1
    assert taken(schedule).items == [second]


def test_a_query_with_an_embedding_needs_no_place_on_the_device():
    schedule = schedule_that_knows(workers=3, batches_in_flight=1)
    schedule.put(a_query())
    taken(schedule)
    waiting, known = a_query(), a_query(tokens=0)
    schedule.put(waiting)
    schedule.put(known)
    assert taken(schedule).items == [known]
    lone = a_query(tokens=0)
    schedule.discard(waiting)
    schedule.put(lone)
    assert taken(schedule).items == [lone]


def test_a_twin_waits_no_longer_than_until_its_query_is_encoded():
    schedule = schedule_that_knows(workers=3, batches_in_flight=2)
    twins = [Query(0.0, "caller", 8, 100.0, key="drill") for _ in range(2)]
    schedule.put(twins[0])
    batch = taken(schedule)
    schedule.put(twins[1])
    assert schedule.take(0.0) is None
    schedule.encoded(batch)
    assert taken(schedule).items == [twins[1]]


def test_a_newcomer_is_told_of_the_wait_for_the_device():
    """Of 11 workers 2 encode; 4 queries of 8 tokens are taken in 2 batches."""
    schedule = schedule_that_knows(workers=11, batches_in_flight=2)
    batches = []
    for _ in range(2):
        assert schedule.forecast("caller", 0.0, cached=False).idle
        schedule.put(a_query())
        batches.append(taken(schedule))
    assert not schedule.forecast("caller", 0.0, cached=False).idle
    assert schedule.forecast("caller", 0.0, cached=True).idle
    for _ in range(4):
        schedule.put(a_query())
    own_s, backlog_s = 1 + 0.8 + 0.01, (2 * 1 + 4 * 0.8) / 2 + 4 * 0.01 / 11
    forecast = schedule.forecast("caller", 0.0, cached=False)
    assert forecast.predicted_s == pytest.approx(2 * own_s / 2 + backlog_s + own_s)
    schedule.encoded(batches[0])
    forecast = schedule.forecast("caller", 0.0, cached=False)
    assert forecast.predicted_s == pytest.approx(own_s / 2 + own_s / 11 + backlog_s + own_s)
