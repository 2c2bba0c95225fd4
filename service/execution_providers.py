"""What onnxruntime computes on, and what keeps it from doing so: checked before a graph is loaded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import distributions

from artifacts.errors import HlmError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
BUILDS = ("onnxruntime", "onnxruntime-gpu")
"""Packages that hold the same library and put its files into the same place."""


class ExecutionProviderError(HlmError):
    """An execution provider that was asked for cannot be had."""


@dataclass(frozen=True, slots=True)
class ExecutionProvider:
    """One, by onnxruntime's own name, with its own options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """How batches run on a device: in few shapes, several at a time; see `service.lanes`."""

    batch_buckets: tuple[int, ...]
    padding_buckets: tuple[int, ...]
    batches_in_flight: int


@dataclass(frozen=True, slots=True)
class ExecutionProviders:
    """Those that a graph may run on, the most wanted first."""

    wanted: tuple[ExecutionProvider, ...] = (ExecutionProvider(CPU),)
    allow_fallback: bool = False
    """Whether the next one, and the CPU in the end, may stand in for one that cannot be had."""
    lanes: LanePolicy | None = None
    """None where batches run as they come, each in the thread that asks: on the CPU."""

    def to_try(self, available: Collection[str]) -> list[tuple[str, dict[str, str]]]:
        """Those to start a session with, as onnxruntime takes them.

        Args:
            available: what the installed onnxruntime has.

        Raises:
            ExecutionProviderError: it lacks one that is wanted.
        """
        missing = [provider.name for provider in self.wanted if provider.name not in available]
        if missing and not self.allow_fallback:
            raise ExecutionProviderError(
                f"{missing[0]} is not in the installed onnxruntime, which has {', '.join(available)}; install the extra"
                " gpu instead of cpu, name another in inference.execution_providers, or set inference.allow_fallback"
            )
        return [(one.name, dict(one.options)) for one in self.wanted if one.name in available] or [(CPU, {})]

    def check_running(self, running: Collection[str]) -> None:
        """See that a session runs on what was wanted most: onnxruntime falls back to the CPU, and only logs why.

        Raises:
            ExecutionProviderError: it does not, and may not.
        """
        first = self.wanted[0].name
        if first not in running and not self.allow_fallback:
            raise ExecutionProviderError(
                f"{first} could not be started, so the graph would run on {', '.join(running)}: its driver or libraries"
                " are missing or do not fit, which onnxruntime has said above; set inference.allow_fallback to serve"
                " so nevertheless"
            )

    def stand_in(self, running: Collection[str]) -> str | None:
        """Which provider stands in for what was wanted most, in a sentence; None where none does."""
        first = self.wanted[0].name
        if first in running:
            return None
        return f"{first} cannot be had, so {next(iter(running))} stands in for it, as inference.allow_fallback lets it"


CPU_ONLY = ExecutionProviders()


def device_of(provider: str, options: Mapping[str, Mapping[str, str]]) -> tuple[str, int]:
    """Where a session's inputs and outputs lie, as onnxruntime names it: type and number of the device.

    Args:
        provider: what most of it runs on.
        options: of each provider, as the session gives them.
    """
    if provider in {CUDA, TENSORRT}:
        return "cuda", int(options.get(provider, {}).get("device_id", "0"))
    return "cpu", 0


def captures_graphs(provider: str, options: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a session captures its runs as CUDA graphs; arguments as of `device_of`."""
    return provider == CUDA and options.get(CUDA, {}).get("enable_cuda_graph", "0").lower() in {"1", "true"}


def check_one_build() -> None:
    """See that there is one onnxruntime.

    Raises:
        ExecutionProviderError: there are two, of which neither is whole.
    """
    installed = {distribution.name for distribution in distributions()}.intersection(BUILDS)
    if len(installed) > 1:
        raise ExecutionProviderError(
            f"{' and '.join(sorted(installed))} are both installed and have overwritten each other's files: uninstall"
            " both, then install one of the extras cpu and gpu"
        )
