"""What the low lane does and finds: jobs, offline requests, recall on live queries, releases compared."""

import contextlib
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JOB_RESULTS = ("done", "failed", "dropped", "cancelled")
OFFLINE_QUERY_OUTCOMES = ("ok", "invalid_request", "deadline_exceeded", "internal_error")
COMPARED_STAGES = ("encode", "search")
PROCESSOR_EDGES_S = (0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1)
SCORE_EDGES = (-0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Around no difference; an int8 encoder's own noise from batch to batch is a few hundredths."""


class LaneMetrics:
    """Counts and figures; series of a release live no longer than `forget_release`."""

    def __init__(self, registry: CollectorRegistry, outcomes: Sequence[str]) -> None:
        """Add the collectors; `outcomes` are those that a request can have."""
        self._queued = Gauge("hlm_low_lane_queued_jobs", "Jobs that wait in the low lane.", registry=registry)
        jobs = Counter("hlm_low_lane_jobs", "Jobs of the low lane, by result.", ["result"], registry=registry)
        self._jobs = {result: jobs.labels(result) for result in JOB_RESULTS}
        requests = Counter(
            "hlm_offline_requests", "Requests to /retrieve/batch, by outcome.", ["outcome"], registry=registry
        )
        self._requests = {outcome: requests.labels(outcome) for outcome in outcomes}
        queries = Counter(
            "hlm_offline_queries", "Queries of /retrieve/batch, by outcome.", ["outcome"], registry=registry
        )
        self._queries = {outcome: queries.labels(outcome) for outcome in OFFLINE_QUERY_OUTCOMES}
        self._recall = Gauge(
            "hlm_ann_recall",
            "Mean ann_recall@k of the last sampled live queries.",
            ["release", "k"],
            registry=registry,
        )
        self._recall_samples = Counter(
            "hlm_ann_recall_samples", "Live queries that were searched exactly.", ["release", "k"], registry=registry
        )
        self._overlap = Gauge(
            "hlm_release_overlap",
            "Mean share of stable's top k that a canary or shadow finds too, over the last compared queries.",
            ["release", "k"],
            registry=registry,
        )
        self._compared = Counter(
            "hlm_release_compared_queries",
            "Live queries that a canary or shadow answered in the low lane.",
            ["release"],
            registry=registry,
        )
        self._mean_difference = Gauge(
            "hlm_release_mean_score_difference",
            "Mean of hlm_release_score_difference over the last compared queries.",
            ["release"],
            registry=registry,
        )
        self._differences = Histogram(
            "hlm_release_score_difference",
            "Mean score of a canary's or shadow's top ads less that of stable's.",
            ["release"],
            buckets=SCORE_EDGES,
            registry=registry,
        )
        self._compared_seconds = Histogram(
            "hlm_release_compared_processor_seconds",
            "Processor time that a canary or shadow took for a compared query.",
            ["release", "stage"],
            buckets=PROCESSOR_EDGES_S,
            registry=registry,
        )

    def observe_queue(self, queued: Callable[[], int]) -> None:
        """Read the length of the queue when it is scraped."""
        self._queued.set_function(queued)

    def job(self, result: str) -> None:
        """A job ended, or never began; one of `JOB_RESULTS`."""
        self._jobs[result].inc()

    def offline_request(self, outcome: str) -> None:
        """A request to /retrieve/batch ended; one of the outcomes that a request can have."""
        self._requests[outcome].inc()

    def offline_queries(self, outcome: str, count: int = 1) -> None:
        """Some of its queries got their lines."""
        self._queries[outcome].inc(count)

    def recall_measured(self, release: str, k: int, mean: float) -> None:
        """One more live query was searched exactly; `mean` is that of the last ones."""
        self._recall.labels(release, k).set(mean)
        self._recall_samples.labels(release, k).inc()

    def release_compared(self, release: str, encode_s: float, search_s: float) -> None:
        """A canary or shadow answered a query that stable had answered."""
        self._compared.labels(release).inc()
        self._compared_seconds.labels(release, "encode").observe(encode_s)
        self._compared_seconds.labels(release, "search").observe(search_s)

    def score_difference_measured(self, release: str, difference: float, mean: float) -> None:
        """How much higher its top ads scored than stable's, and the mean of that of the last compared queries."""
        self._differences.labels(release).observe(difference)
        self._mean_difference.labels(release).set(mean)

    def overlap_measured(self, release: str, k: int, mean: float) -> None:
        """How much of stable's top k it found, as the mean of the last compared queries."""
        self._overlap.labels(release, k).set(mean)

    def forget_recall(self, release: str, ks: Sequence[int]) -> None:
        """Remove a retired release's recall."""
        for k in ks:
            _remove(self._recall, release, str(k))
            _remove(self._recall_samples, release, str(k))

    def forget_comparison(self, release: str, ks: Sequence[int]) -> None:
        """Remove what was compared of a retired release."""
        for k in ks:
            _remove(self._overlap, release, str(k))
        for family in (self._compared, self._differences, self._mean_difference):
            _remove(family, release)
        for stage in COMPARED_STAGES:
            _remove(self._compared_seconds, release, stage)


def _remove(family: Gauge | Counter | Histogram, *labels: str) -> None:
    with contextlib.suppress(KeyError):  # nothing was counted of it
        family.remove(*labels)
