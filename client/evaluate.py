"""Retrieval quality of a running service against human judgments: queries go in over HTTP, `ir_measures` computes."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from client.errors import AnswerError, ClientError
from client.http import Answer, RetrieveClient
from client.trec import Qrels
from terminal import progress

EVALUATION_TIMEOUT_MS = 10_000
"""The longest budget a service accepts: quality is measured here, not whether a deadline is kept."""
RANK_CUTOFF = 10
"""Where nDCG and the reciprocal rank stop, unless fewer ads are asked for."""


class Record(BaseModel):
    """Base of the report's parts."""

    model_config = ConfigDict(frozen=True)


class MeasuredQuality(Record):
    """One measure, averaged over the queries on which it is defined."""

    measure: str
    """Name by the grammar of ir_measures, for example `R(rel=2)@100`."""
    value: float
    query_count: int


class QueryOutcome(Record):
    """What came back for one query: ad ids in falling score, or why there are none."""

    query_id: str
    ad_ids: tuple[str, ...] = ()
    versions: tuple[str, str, str] | None = None
    """Release, model version, index version; None where the query failed."""
    failure: str | None = None


class Evaluation(Record):
    """The report of one evaluation."""

    url: str
    release: str | None
    model_version: str | None
    index_version: str | None
    top_k: int
    relevance: int
    """Least grade that counts as relevant for recall, precision and reciprocal rank."""
    asked_count: int
    """Queries of the file that have a judged ad."""
    failures: dict[str, list[str]]
    """Ids of the queries that got no answer, by reason; they count as if no ad had come back."""
    measures: list[MeasuredQuality]

    @property
    def failed_count(self) -> int:
        """Queries that got no answer."""
        return sum(len(query_ids) for query_ids in self.failures.values())


def evaluate_service(
    url: str, queries: Mapping[str, str], qrels: Qrels, *, top_k: int, relevance: int, concurrency: int
) -> Evaluation:
    """Ask a service every query that has a judgment, and measure its rankings.

    Args:
        url: where the service listens.
        queries: text by query_id.
        qrels: grade of each judged ad, by query_id and ad_id.
        top_k: ads asked for a query, and the cutoff of recall and precision.
        relevance: least grade that counts as relevant.
        concurrency: requests under way at a time.

    Raises:
        ClientError: nothing can be measured with these files, the service went away or its release changed halfway,
            or ir_measures is not installed.
    """
    judged = {query_id: qrels[query_id] for query_id in queries if query_id in qrels}
    relevant = {query_id: grades for query_id, grades in judged.items() if max(grades.values()) >= relevance}
    if not relevant:
        raise ClientError(
            f"Nothing to measure: of {len(queries):,} queries {len(judged):,} have judged ads, "
            f"but none has an ad of grade {relevance} or above"
        )
    ir_measures = _load_ir_measures()
    outcomes = _ask_all(url, {query_id: queries[query_id] for query_id in judged}, top_k, concurrency)
    versions = _single_release(outcomes)
    rankings = {outcome.query_id: outcome.ad_ids for outcome in outcomes}
    return Evaluation(
        url=url,
        release=versions[0],
        model_version=versions[1],
        index_version=versions[2],
        top_k=top_k,
        relevance=relevance,
        asked_count=len(outcomes),
        failures=_failures(outcomes),
        measures=_measure(ir_measures, judged, relevant, rankings, top_k, relevance),
    )


def save_report(evaluation: Evaluation, path: Path) -> None:
    """Write a report as JSON, making the directories above it.

    Raises:
        ClientError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ClientError(f"{path}: cannot be written ({error.strerror})") from error


def _load_ir_measures() -> Any:
    try:
        import ir_measures  # noqa: PLC0415 - only this command needs it, and a serving environment lacks it
    except ImportError as error:
        raise ClientError("The package ir_measures is missing; install the extra `offline` to evaluate") from error
    return ir_measures


def _ask_all(url: str, queries: Mapping[str, str], top_k: int, concurrency: int) -> list[QueryOutcome]:
    """Ask in the given order, `concurrency` at a time; the first failure to get any answer ends it."""
    with RetrieveClient(url, connections=concurrency) as client, ThreadPoolExecutor(concurrency) as pool:

        def ask(query_id: str) -> QueryOutcome:
            try:
                answer, _ = client.retrieve(queries[query_id], top_k=top_k, timeout_ms=EVALUATION_TIMEOUT_MS)
            except AnswerError as error:
                return QueryOutcome(query_id=query_id, failure=error.reason)
            return _outcome(query_id, answer)

        outcomes = []
        with progress("Asking", len(queries), "queries") as advance:
            for outcome in pool.map(ask, queries):
                outcomes.append(outcome)
                advance(1)
    return outcomes


def _outcome(query_id: str, answer: Answer) -> QueryOutcome:
    ad_ids = tuple(ad.ad_id for ad in answer.ads)
    if len(set(ad_ids)) < len(ad_ids):
        raise ClientError(f"Query {query_id}: the answer holds an ad twice; expected each ad_id once")
    return QueryOutcome(
        query_id=query_id, ad_ids=ad_ids, versions=(answer.release, answer.model_version, answer.index_version)
    )


def _single_release(outcomes: Sequence[QueryOutcome]) -> tuple[str, str, str] | tuple[None, None, None]:
    seen = {outcome.versions for outcome in outcomes if outcome.versions}
    if len(seen) > 1:
        releases = " and ".join(" / ".join(versions) for versions in sorted(seen))
        raise ClientError(f"Answers came from several releases ({releases}); expected one for the whole evaluation")
    return seen.pop() if seen else (None, None, None)


def _failures(outcomes: Sequence[QueryOutcome]) -> dict[str, list[str]]:
    failures: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.failure:
            failures.setdefault(outcome.failure, []).append(outcome.query_id)
    return failures


def _measure(
    ir_measures: Any, judged: Qrels, relevant: Qrels, rankings: Mapping[str, Sequence[str]], top_k: int, relevance: int
) -> list[MeasuredQuality]:
    """Compute the measures, each over the queries on which it is defined.

    Recall, precision and reciprocal rank need a relevant ad, nDCG (grades as gains) an ad with a gain. An unjudged ad
    has no gain, as trec_eval has it; `judged_only` leaves such ads out of the ranking instead, which says more where
    few ads are judged.
    """
    cutoff = min(RANK_CUTOFF, top_k)
    gained = {query_id: grades for query_id, grades in judged.items() if max(grades.values()) > 0}
    measures = [
        (ir_measures.R(rel=relevance) @ top_k, relevant),
        (ir_measures.P(rel=relevance) @ top_k, relevant),
        (ir_measures.RR(rel=relevance) @ cutoff, relevant),
        (ir_measures.nDCG @ cutoff, gained),
        (ir_measures.nDCG(judged_only=True) @ cutoff, gained),
    ]
    # trec_eval orders by score and breaks ties by id; ranks as scores keep the order that was served.
    run = {
        query_id: {ad_id: -float(rank) for rank, ad_id in enumerate(ad_ids)} for query_id, ad_ids in rankings.items()
    }
    return [
        MeasuredQuality(
            measure=str(measure),
            value=ir_measures.calc_aggregate([measure], qrels, run)[measure],
            query_count=len(qrels),
        )
        for measure, qrels in measures
    ]
