"""The GPU in numbers: memory, utilisation and temperature when they are scraped, and the faults of its batches."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.device_faults import FAULTS, DeviceFaultError
from service.execution_providers import ExecutionProviderError
from service.gpu import GpuLoad


class GpuMetrics(Collector):
    """Counts from any thread; the gauges are missing where there is no GPU, and while it does not answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the collectors."""
        self._load: Callable[[], GpuLoad] | None = None
        faults = Counter("hlm_device_faults", "Runs that failed on a device, by fault.", ["kind"], registry=registry)
        self._faults = {kind: faults.labels(kind) for kind in FAULTS}
        registry.register(self)

    def observe(self, load: Callable[[], GpuLoad]) -> None:
        """Read the gauges from here when they are scraped."""
        self._load = load

    def failed(self, error: Exception) -> None:
        """A run of the pipeline failed; counted where the device was at fault."""
        if isinstance(error, DeviceFaultError):
            self._faults[error.kind].inc()

    def collect(self) -> Iterator[Metric]:
        """What a scrape sees."""
        load = self._look()
        for name, (meaning, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning)
            if load is not None:
                gauge.add_metric([], read(load))
            yield gauge

    def _look(self) -> GpuLoad | None:
        try:
            return None if self._load is None else self._load()
        except ExecutionProviderError:  # readiness says so, by the queries that fail
            return None


_GAUGES: dict[str, tuple[str, Callable[[GpuLoad], float]]] = {
    "hlm_gpu_memory_used_bytes": (
        "Memory of the GPU that is in use, by any process.",
        lambda load: load.memory_used_bytes,
    ),
    "hlm_gpu_memory_total_bytes": ("Memory of the GPU.", lambda load: load.memory_total_bytes),
    "hlm_gpu_utilization_ratio": (
        "Share of the last moments in which the GPU computed.",
        lambda load: load.utilization,
    ),
    "hlm_gpu_temperature_celsius": ("Temperature of the GPU.", lambda load: load.temperature_celsius),
}
