"""Measures are checked against values worked out by hand from their textbook definitions."""

import sys
from math import log2
from typing import Any

import pytest

from client.errors import ClientError
from client.evaluate import Evaluation, evaluate_service
from tests.client.standin import Reply, answer, problem, serve

QUERIES = {"q1": "drill", "q2": "saw", "q3": "hammer", "q4": "nail", "q5": "nobody judged this"}
QRELS = {
    "q1": {"a": 2, "b": 1, "c": 0},
    "q2": {"d": 2, "e": 2},
    "q3": {"f": 1},  # no ad of grade 2: no recall, precision or reciprocal rank
    "q4": {"g": 0},  # no gain: no nDCG either
    "q9": {"h": 2},  # not among the queries
}
RANKINGS = {"drill": ["z", "b", "a", "c"], "saw": ["d", "y"], "hammer": [], "nail": ["g"]}
BY_TEXT = {text: query_id for query_id, text in QUERIES.items()}


def respond(request: dict[str, Any]) -> Reply:
    return answer(RANKINGS[request["query"]])


def evaluate(url: str, *, top_k: int = 4, relevance: int = 2) -> Evaluation:
    return evaluate_service(url, QUERIES, QRELS, top_k=top_k, relevance=relevance, concurrency=3)


def measured(evaluation: Evaluation) -> dict[str, tuple[float, int]]:
    return {item.measure: (pytest.approx(item.value), item.query_count) for item in evaluation.measures}


def test_measures_equal_those_worked_out_by_hand():
    with serve(respond) as service:
        evaluation = evaluate(service.url)
    # Gains at ranks 2 and 3 of q1, at rank 1 of q2; ideal: gains 2, 1 and gains 2, 2.
    q1 = (1 / log2(3) + 2 / log2(4)) / (2 + 1 / log2(3))
    q1_judged_only = (1 + 2 / log2(3)) / (2 + 1 / log2(3))
    q2 = 2 / (2 + 2 / log2(3))
    assert measured(evaluation) == {
        "R(rel=2)@4": ((1 + 1 / 2) / 2, 2),
        "P(rel=2)@4": ((1 / 4 + 1 / 4) / 2, 2),
        "RR(rel=2)@4": ((1 / 3 + 1) / 2, 2),
        "nDCG@4": ((q1 + q2 + 0) / 3, 3),
        "nDCG(judged_only=True)@4": ((q1_judged_only + q2 + 0) / 3, 3),
    }
    assert (evaluation.asked_count, evaluation.failed_count) == (4, 0)
    assert (evaluation.release, evaluation.model_version, evaluation.index_version) == ("r1", "minilm-1", "demo-1")


def test_a_lower_grade_makes_more_ads_relevant():
    with serve(respond) as service:
        values = measured(evaluate(service.url, relevance=1))
    assert values["R@4"] == ((2 / 2 + 1 / 2 + 0 / 1) / 3, 3)
    assert values["RR@4"] == ((1 / 2 + 1 + 0) / 3, 3)


def test_ndcg_and_reciprocal_rank_stop_at_ten():
    late = [f"x{number}" for number in range(10)]

    def rank_eleventh(request: dict[str, Any]) -> Reply:
        return answer([*late, *QRELS[BY_TEXT[request["query"]]]])

    with serve(rank_eleventh) as service:
        values = measured(evaluate(service.url, top_k=100))
    assert values["R(rel=2)@100"] == (1, 2)
    assert values["RR(rel=2)@10"] == (0, 2)
    assert values["nDCG@10"] == (0, 3)
    assert values["nDCG(judged_only=True)@10"] == (1, 3)


def test_equal_scores_keep_the_order_that_was_served():
    """trec_eval by itself would put z before a."""

    with serve(lambda _: answer(["a", "z"], falling=0)) as service:
        evaluation = evaluate_service(
            service.url, {"q1": "drill"}, {"q1": {"a": 2}}, top_k=4, relevance=2, concurrency=1
        )
    assert measured(evaluation)["RR(rel=2)@4"] == (1, 1)


def test_queries_without_an_answer_are_named_and_count_as_empty():
    def refuse_some(request: dict[str, Any]) -> Reply:
        return problem(503, "overloaded", "full") if request["query"] in {"saw", "nail"} else respond(request)

    with serve(refuse_some) as service:
        evaluation = evaluate(service.url)
    assert evaluation.failures == {"503 overloaded": ["q2", "q4"]}
    assert evaluation.failed_count == 2
    assert measured(evaluation)["R(rel=2)@4"] == (1 / 2, 2)


def test_when_no_query_is_answered_there_is_still_a_report():
    with serve(lambda _: problem(503, "not_ready", "loading")) as service:
        evaluation = evaluate(service.url)
    assert evaluation.failed_count == evaluation.asked_count == 4
    assert evaluation.release is None
    assert [item.value for item in evaluation.measures] == [0] * 5


def test_each_judged_query_is_asked_once_with_the_longest_budget():
    with serve(respond) as service:
        evaluate(service.url, top_k=7)
    assert sorted(request["query"] for request in service.requests) == ["drill", "hammer", "nail", "saw"]
    assert {(request["top_k"], request["timeout_ms"]) for request in service.requests} == {(7, 10_000)}


def test_a_release_that_changes_halfway_ends_it():
    with (
        serve(lambda request: answer([], release=request["query"])) as service,
        pytest.raises(ClientError, match="Answers came from several releases"),
    ):
        evaluate(service.url)


def test_an_answer_with_an_ad_twice_ends_it():
    with (
        serve(lambda _: answer(["a", "b", "a"])) as service,
        pytest.raises(ClientError, match="the answer holds an ad twice"),
    ):
        evaluate(service.url)


@pytest.mark.parametrize(
    ("relevance", "qrels"), [pytest.param(3, QRELS, id="no such grade"), pytest.param(2, {}, id="no judgments")]
)
def test_files_with_nothing_to_measure_are_refused_before_anything_is_asked(relevance: int, qrels: dict[str, Any]):
    with pytest.raises(ClientError, match=f"none has an ad of grade {relevance} or above"):
        evaluate_service("http://127.0.0.1:9", QUERIES, qrels, top_k=4, relevance=relevance, concurrency=1)


def test_without_ir_measures_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(ClientError, match="install the extra `offline`"):
        evaluate("http://127.0.0.1:9")
