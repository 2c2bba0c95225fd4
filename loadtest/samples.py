"""What a load saw, request by request, and what that says."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.recorder import COLUMNS, OK, STAGES

Floats = NDArray[np.float64]


@dataclass
class Samples:
    """Every request of a load; a row a request, with the columns of `loadtest.recorder`."""

    rows: Floats = field(default_factory=lambda: np.empty((0, len(COLUMNS))))
    outcomes: list[str] = field(default_factory=lambda: [OK])
    busy_share: float = 0.0
    """Of one core, the share that the busiest generator process used; near 1 it is what limits the run."""

    @staticmethod
    def of(reports: Iterable[dict[str, Any]]) -> "Samples":
        """The rows of `Recorder.take` from any number of processes, which number outcomes each on their own."""
        outcomes = {OK: 0}
        parts = [np.empty((0, len(COLUMNS)))]
        busy: Counter[str] = Counter()
        elapsed: Counter[str] = Counter()
        for report in reports:
            part = np.frombuffer(report["rows"]).reshape(-1, len(COLUMNS)).copy()
            numbers = np.array([outcomes.setdefault(name, len(outcomes)) for name in report["outcomes"]])
            part[:, 3] = numbers[part[:, 3].astype(int)]
            parts.append(part)
            worker = report.get("worker", "")
            busy[worker] += report["busy_s"]
            elapsed[worker] += report["elapsed_s"]
        busy_share = max((busy[worker] / elapsed[worker] for worker in elapsed if elapsed[worker]), default=0.0)
        return Samples(np.concatenate(parts), list(outcomes), busy_share)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> Floats:
        """One of `COLUMNS`."""
        found: Floats = self.rows[:, COLUMNS.index(name)]
        return found

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which were answered well."""
        well: NDArray[np.bool_] = self.column("outcome") == 0
        return well

    @property
    def error_share(self) -> float:
        """Of all requests, those that were not answered well."""
        return float(np.mean(~self.ok)) if len(self) else 0.0

    @property
    def latency_ms(self) -> Floats:
        """Of the requests that were answered well, from when they were due."""
        return self.column("latency_s")[self.ok] * 1e3

    def errors(self) -> dict[str, int]:
        """How many requests ended in each outcome other than well, most first."""
        counts = np.bincount(self.column("outcome").astype(int), minlength=len(self.outcomes))
        found = Counter({name: int(count) for name, count in zip(self.outcomes, counts, strict=True) if name != OK})
        return {name: count for name, count in found.most_common() if count}

    def between(self, from_s: float, to_s: float) -> "Samples":
        """Those that were due in [`from_s`, `to_s`)."""
        due = self.column("due_s")
        return Samples(self.rows[(due >= from_s) & (due < to_s)], self.outcomes, self.busy_share)

    def shifted(self, by_s: float) -> "Samples":
        """With times that count from `by_s`."""
        rows = self.rows.copy()
        rows[:, 0] -= by_s
        return Samples(rows, self.outcomes, self.busy_share)

    def stages_ms(self) -> dict[str, Floats]:
        """The server's own timings, of the requests that were answered well."""
        return {stage: self.column(stage)[self.ok] for stage in STAGES}


def percentile(values: Floats, rank: float) -> float | None:
    """A percentile (0 to 100) that was really measured, None of nothing."""
    return float(np.percentile(values, rank, method="higher")) if len(values) else None
