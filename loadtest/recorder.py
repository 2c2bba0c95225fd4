"""What became of each request, a row each, and how busy the generator was; about 100 bytes a request."""

import time
from array import array
from typing import Any

STAGES = ("tokenize", "queue", "encode", "search", "total")
COLUMNS = ("due_s", "late_s", "latency_s", "outcome", "cached", "degraded", *STAGES)
"""`due_s` since the load began, `late_s` how long after that it was sent, `latency_s` from then to the last byte; the
number of its outcome; 0 or 1; the server's own timings in ms, nan where there was no answer 200."""
OK = "ok"
NO_STAGES = (float("nan"),) * len(STAGES)


class Recorder:
    """Rows since the last `take`."""

    def __init__(self) -> None:
        self.polled_s = 0.0
        """How long it has polled for the next arrival with nothing else to do, which is no work."""
        self._outcomes = {OK: 0}
        self._rows = array("d")
        self._started_s, self._cpu_s = time.perf_counter(), time.process_time()

    def add(
        self, due_s: float, late_s: float, latency_s: float, outcome: str, answer: dict[str, Any] | None = None
    ) -> None:
        """Keep what became of a request; `answer` is that of status 200."""
        number = self._outcomes.setdefault(outcome, len(self._outcomes))
        if answer is None or outcome != OK:
            self._rows.extend((due_s, late_s, latency_s, number, 0, 0, *NO_STAGES))
            return
        timings = answer["timings_ms"]
        degraded = bool(answer["coverage"].get("degraded"))
        self._rows.extend(
            (
                due_s,
                late_s,
                latency_s,
                number,
                bool(answer.get("cached")),
                degraded,
                *map(timings.get, STAGES, NO_STAGES),
            )
        )

    def take(self) -> dict[str, Any]:
        """Everything since the last call, as it travels between processes."""
        now_s, cpu_s = time.perf_counter(), time.process_time()
        taken = {
            "rows": self._rows.tobytes(),
            "outcomes": list(self._outcomes),
            "busy_s": max(0.0, cpu_s - self._cpu_s - self.polled_s),
            "elapsed_s": now_s - self._started_s,
        }
        self._rows = array("d")
        self._started_s, self._cpu_s, self.polled_s = now_s, cpu_s, 0.0
        return taken
