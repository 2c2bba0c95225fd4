"""The front processes in numbers; what they answer is counted where the engine answers it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class FrontMetrics:
    """Counts on the event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the collectors."""
        self._running = Gauge("hlm_front_processes", "Front processes that accept connections.", registry=registry)
        self._restarts = Counter(
            "hlm_front_restarts",
            "Front processes that were replaced because they died or stood still.",
            registry=registry,
        )

    def observe(self, running: Callable[[], int]) -> None:
        """Read how many there are from here, when it is scraped."""
        self._running.set_function(running)

    def restarted(self) -> None:
        """One was replaced."""
        self._restarts.inc()
