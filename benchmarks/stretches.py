"""Open-loop load over stretches of time in which something happens to the server, or nothing."""

from dataclasses import dataclass, field

import numpy as np

from benchmarks.open_load import FAILED, OpenLoad


@dataclass(slots=True)
class Stretches:
    """Loads of one kind, taken as one."""

    loads: list[OpenLoad] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many were due."""
        return sum(len(load.status) for load in self.loads)

    @property
    def failed(self) -> int:
        """How many had another answer than 200, or none."""
        return sum(int(np.sum(load.status != 200)) for load in self.loads)

    @property
    def lost(self) -> int:
        """How many the server took and did not answer 200; a connection that was refused took nothing."""
        return self.failed - sum(
            int(np.sum((load.status == FAILED) & np.isnan(load.sent_s) & np.isnan(load.done_s))) for load in self.loads
        )

    def latency_ms(self, percentile: float) -> float:
        """A percentile (0 to 100) of the latency of all answers 200 together; nan where there was none."""
        latencies = np.concatenate([load.latency_s[load.status == 200] for load in self.loads])
        return float(np.percentile(latencies, percentile)) * 1e3 if len(latencies) else float("nan")

    @property
    def statuses(self) -> str:
        """How many ended in which status other than 200, for people; 0 is a failed connection."""
        found, counts = np.unique(np.concatenate([load.status for load in self.loads]), return_counts=True)
        return ", ".join(f"{count} × {status}" for status, count in zip(found, counts, strict=True) if status != 200)

    def cells(self) -> tuple[str, str, str, str, str]:
        """A table's cells: requests, failed, p50, p99, statuses."""
        p50, p99 = self.latency_ms(50), self.latency_ms(99)
        return f"{self.requests:,}", str(self.failed), f"{p50:.2f}", f"{p99:.2f}", self.statuses


CELL_HEADINGS = ("requests", "failed", "p50 ms", "p99 ms", "statuses")
