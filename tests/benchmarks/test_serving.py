import orjson
import pytest

from benchmarks.http_load import Load
from benchmarks.servers import BareLoad
from benchmarks.serving import Round, cached_ms, medians, ratios
from tests.benchmarks.test_overload import load_of


def served(queries_per_second: float, *, p50_ms: float = 1.0, generator_cpus: float = 1.0) -> Load:
    return Load(queries_per_second, p50_ms, 9.0, 1_000, 0, generator_cpus)


def bare(batch_size: int, took_ms: float) -> BareLoad:
    return BareLoad(batch_size, [took_ms] * 100)


def test_ratios_relate_the_service_to_the_bare_loop_and_two_cores_to_one():
    one = Round(
        bare={1: bare(1, 2.0), 8: bare(8, 10.0), 32: bare(32, 50.0)},
        bare_huge_pages=bare(1, 1.25),
        bare_both_qps=1_500,
        served={1: served(400, p50_ms=2.3), 8: served(650), 32: served(720), 64: served(700)},
        half_load=load_of([0.004] * 98 + [0.006] * 2, [200] * 100, seconds=1),
        half_load_limit_ms=5.0,
        both_cores=served(1_190, generator_cpus=0.3),
        cached_ms=0.2,
    )
    assert ratios(one) == pytest.approx(
        {
            "p50_ratio_c1": 1.15,
            "p50_ratio_c1_huge_pages": 1.84,
            "throughput_ratio_best": 0.9,
            "scaling_2_cores": 2.0,  # 1.7 with 1.7 of the 2 cores
            "scaling_2_cores_raw": 1.7,
            "p99_over_bare_p50_half_load": 3.0,
            "p99_limit_half_load": 2.5,
            "cached_ms": 0.2,
        }
    )


def test_medians_are_taken_by_name_and_leave_out_what_was_not_measured():
    rounds = [{"a": 1.0, "b": None}, {"a": 9.0, "b": None}, {"a": 2.0, "b": None}, {"a": 3.0, "b": 4.0}]
    assert medians(rounds) == {"a": 2.5, "b": 4.0}
    assert medians(rounds[:2]) == {"a": 5.0, "b": None}


def answer(total: float, search: float, *, cached: bool) -> bytes:
    return orjson.dumps({"cached": cached, "timings_ms": {"total": total, "search": search, "encode": 0.0}})


def test_the_time_of_a_cached_query_is_what_the_answers_say_less_their_search():
    answers = [answer(9.0, 0.4, cached=False)] + [answer(0.4 + own, 0.4, cached=True) for own in (0.1, 0.2, 0.9)]
    assert cached_ms(iter(answers)) == pytest.approx(0.2)


def test_without_a_cache_there_is_no_such_time():
    assert cached_ms(iter([answer(2.0, 0.4, cached=False)])) is None
