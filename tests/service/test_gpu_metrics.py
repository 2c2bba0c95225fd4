"""What a scrape sees of a GPU."""

from prometheus_client import CollectorRegistry, generate_latest

from service.device_faults import DeviceLostError
from service.execution_providers import ExecutionProviderError
from service.gpu import GpuLoad
from service.gpu_metrics import GpuMetrics


def scrape(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_the_gauges_are_those_of_the_moment_and_missing_without_a_gpu():
    registry = CollectorRegistry()
    metrics = GpuMetrics(registry)
    assert not [name for name in scrape(registry) if name.startswith("hlm_gpu")]
    metrics.observe(lambda: GpuLoad(3_000, 80_000, 0.25, 61.0))
    seen = scrape(registry)
    assert (seen["hlm_gpu_memory_used_bytes"], seen["hlm_gpu_memory_total_bytes"]) == (3_000, 80_000)
    assert (seen["hlm_gpu_utilization_ratio"], seen["hlm_gpu_temperature_celsius"]) == (0.25, 61)

    def gone() -> GpuLoad:
        raise ExecutionProviderError("GPU 0: its driver does not answer")

    metrics.observe(gone)
    assert not [name for name in scrape(registry) if name.startswith("hlm_gpu")]


def test_only_the_devices_own_faults_are_counted():
    registry = CollectorRegistry()
    metrics = GpuMetrics(registry)
    metrics.failed(ValueError("a bad query"))
    metrics.failed(DeviceLostError("gone"))
    seen = scrape(registry)
    assert seen['hlm_device_faults_total{kind="lost"}'] == 1
    assert seen['hlm_device_faults_total{kind="out_of_memory"}'] == 0
