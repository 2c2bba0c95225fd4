"""Changes of ads in numbers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from index.writer import Commit

KINDS = {
    "Upsert": "upsert",
    "Delete": "delete",
    "PatchAd": "ad_patch",
    "PatchCampaign": "campaign_patch",
}
"""Names of the changes of `index.changes`, as the label has them."""
RESULTS = ("applied", "unchanged", "unknown", "invalid", "refused")
COMMIT_EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""From a commit that is not synced to a disk that is busy with something else."""


class AdMetrics:
    """Counts and durations; from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        changes = Counter(
            "hlm_ad_changes", "Changes of ads, by what came of it.", ["kind", "result"], registry=registry
        )
        self._changes = {(kind, result): changes.labels(kind, result) for kind in KINDS.values() for result in RESULTS}
        self._sequence = Gauge("hlm_record_sequence", "Number of the last change that was recorded.", registry=registry)
        self._commit = Histogram(
            "hlm_record_commit_seconds",
            "Time of a transaction of the record, which changes share.",
            buckets=COMMIT_EDGES_S,
            registry=registry,
        )
        self._freshness = Histogram(
            "hlm_freshness_seconds",
            "From a recorded change until searches see it.",
            buckets=COMMIT_EDGES_S,
            registry=registry,
        )

    def committed(self, commit: Commit) -> None:
        """Changes were recorded, and made in memory."""
        for (kind, result), count in commit.results.items():
            self._changes[KINDS[kind], result].inc(count)
        self._sequence.set(commit.sequence)
        self._commit.observe(commit.commit_s)
        self._freshness.observe(commit.apply_s)

    def invalid(self, kind: str, count: int = 1) -> None:
        """Changes were wrong in themselves; `kind` is one of the values of `KINDS`."""
        self._changes[kind, "invalid"].inc(count)

    def refused(self, kind: str, count: int) -> None:
        """Changes could not be recorded."""
        self._changes[kind, "refused"].inc(count)
