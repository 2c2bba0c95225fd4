"""The settings of the service: one frozen object, read once at the edge and passed down."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from index.record import Synchronous
from service.admission import StepName
from service.errors import StartupError
from service.execution_providers import CPU, ExecutionProvider, ExecutionProviders, LanePolicy, device_of
from service.setting_errors import ENV_DELIMITER, ENV_PREFIX, describe
from service.shapes import batch_buckets

ADMIN_TOKEN_VARIABLE = "HLM_ADMIN_TOKEN"  # noqa: S105 - its name, not its value
LEAST_TOKEN_CHARACTERS = 16
REQUEST_LOG_KEY_VARIABLE = "HLM_REQUEST_LOG_KEY"
LEAST_KEY_CHARACTERS = 16


class Section(BaseModel):
    """Base of the sections: immutable, and an unknown setting is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ReleaseSettings(Section):
    """What is served."""

    name: str = Field(min_length=1, max_length=128, description="Name of the release, in every answer.")
    encoder: Path = Field(description="Directory of the encoder artifact.")
    index: Path = Field(description="Directory of the index artifact.")
    record: Path | None = Field(
        None,
        description="File of the durable record, by which ads can be changed; it begins with those of the index.",
    )


class CanarySettings(ReleaseSettings):
    """A release that answers some of the requests, and loses them when it fails or is slow."""

    share: float = Field(
        0.01, ge=0, le=1, description="Share of the requests that it answers, chosen by a hash of their ids."
    )
    max_error_ratio: float = Field(
        0.02,
        ge=0,
        le=1,
        description="How much larger its share of failed requests may be than the stable release's.",
    )
    max_latency_ratio: float = Field(
        1.5, ge=1, description="How many times the stable release's 95th percentile its own may be."
    )
    min_requests: int = Field(
        500, ge=20, description="Requests to the canary after which it is judged, again and again."
    )


class ShadowSettings(ReleaseSettings):
    """A release that gets copies of requests in the low lane and never answers."""

    share: float = Field(0.1, ge=0, le=1, description="Share of the requests that it gets a copy of.")


class SwapSettings(Section):
    """How one release takes over from another."""

    keep_previous_ms: int = Field(
        300_000, ge=0, description="How long the release before stays loaded for a rollback, while memory allows."
    )
    min_golden_overlap: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least share of the golden queries' ads that encoder and original must have in common; by default"
        " what the parity report lets expect.",
    )
    min_ann_recall: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least ann_recall on the golden queries; by default what the index's report lets expect.",
    )


class ServerSettings(Section):
    """Where it listens and how it stops."""

    host: str = Field("127.0.0.1", description="Address of the public listener.")
    port: int = Field(8080, ge=0, le=65_535, description="Port of the public listener; 0 takes a free one.")
    admin_host: str = Field("127.0.0.1", description="Address of the admin listener, which needs `HLM_ADMIN_TOKEN`.")
    admin_port: int = Field(8081, ge=0, le=65_535, description="Port of the admin listener; 0 takes a free one.")
    drain_grace_ms: int = Field(
        5_000, ge=0, description="After SIGTERM: how long requests are still accepted while readiness says no."
    )
    shutdown_timeout_ms: int = Field(
        10_000, ge=0, description="After the grace time: how long requests in flight may take to finish."
    )
    keep_alive_timeout_ms: int = Field(
        75_000,
        ge=0,
        description="How long an idle connection is kept, one of the admin listener too; longer than a load balancer"
        " keeps its own.",
    )
    front_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that read requests, tokenise queries and write answers for the one that encodes and"
        " searches; 0 does all of it in one process.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Form of a log line; `auto` is `text` on a terminal and `json` everywhere else."
    )


class RecordSettings(Section):
    """How changes of ads are made durable."""

    synchronous: Synchronous = Field(
        "full",
        description="`full` syncs the disk with each commit, so that a power loss loses nothing that was answered;"
        " `normal` may lose the last commits then, and neither loses any to a killed process.",
    )


class BatchingSettings(Section):
    """How queued queries become batches."""

    max_batch_size: int = Field(8, ge=1, le=1_024, description="Most queries in a batch.")
    max_batch_tokens: int = Field(
        1_024, ge=1, description="Most tokens in a batch after padding; a longer query goes alone."
    )
    max_queue_size: int = Field(
        512, ge=2, description="Most queries waiting; a caller may hold as many places as it leaves free."
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads that encode and search; by default the usable cores, and at least one more than"
        " `inference.batches_in_flight`.",
    )


class ExecutionProviderSettings(Section):
    """What onnxruntime may compute on, by its own name and with its own options."""

    name: str = Field(min_length=1)
    options: dict[str, str | bool | int | float] = {}


def _with_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


PADDING_BUCKETS = (8, 16, 24, 32)
"""Queries have five words, so the steps are close together where they are short."""
BATCHES_IN_FLIGHT = 2
"""One is computed while the other is copied."""


class InferenceSettings(Section):
    """What encoders run on."""

    execution_providers: tuple[Annotated[ExecutionProviderSettings, BeforeValidator(_with_name)], ...] = Field(
        (ExecutionProviderSettings(name=CPU),),
        min_length=1,
        description="onnxruntime's execution providers, the most wanted first: names, or `name` and `options`.",
    )
    allow_fallback: bool = Field(
        False, description="Whether the next one, and the CPU in the end, may stand in for one that cannot be had."
    )

    padding_buckets: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        description="Lengths in tokens to which a device's batches are padded, beside the longest query and ad;"
        f" by default {list(PADDING_BUCKETS)} on a GPU, and on the CPU the longest of each batch.",
    )
    batches_in_flight: int | None = Field(
        None,
        ge=1,
        le=8,
        description="Batches that are encoded at once; by default two on a GPU, and on the CPU as many as there are"
        " workers.",
    )

    def providers(self, max_batch_size: int) -> ExecutionProviders:
        """As sessions take them."""
        wanted = (ExecutionProvider(one.name, _as_text(one.options)) for one in self.execution_providers)
        return ExecutionProviders(tuple(wanted), self.allow_fallback, self._lanes(max_batch_size))

    @property
    def gpu(self) -> int | None:
        """Number of the GPU that is wanted most; None where it is the CPU."""
        first = self.execution_providers[0]
        kind, number = device_of(first.name, {first.name: _as_text(first.options)})
        return number if kind == "cuda" else None

    def _lanes(self, max_batch_size: int) -> LanePolicy | None:
        on_cpu = self.execution_providers[0].name == CPU
        if on_cpu and self.padding_buckets is None and self.batches_in_flight is None:
            return None
        paddings = PADDING_BUCKETS if self.padding_buckets is None else self.padding_buckets
        return LanePolicy(batch_buckets(max_batch_size), paddings, self.batches_in_flight or BATCHES_IN_FLIGHT)


def _as_text(options: Mapping[str, str | bool | int | float]) -> dict[str, str]:
    """As onnxruntime has them; its booleans are 0 and 1."""
    return {name: str(int(value) if isinstance(value, bool) else value) for name, value in options.items()}


class CacheSettings(Section):
    """What is kept of earlier requests."""

    embedding_bytes: int = Field(
        67_108_864, ge=0, description="Memory for query embeddings, about 2 KB each at dim 384; 0 turns it off."
    )
    result_ttl_ms: int = Field(
        0,
        ge=0,
        le=1_000,
        description="How long a whole result is used again, at most the second in which changes of ads have to be"
        " obeyed; 0 turns it off.",
    )


class StepSettings(Section):
    """A way to answer more cheaply under pressure."""

    name: StepName = Field(description="What is done.")
    at_pressure: float = Field(gt=0, le=1, description="From which pressure on.")


class OverloadSettings(Section):
    """How answers get cheaper before any is refused."""

    steps: tuple[StepSettings, ...] = Field(
        (
            StepSettings(name="smaller_ef_search", at_pressure=0.5),
            StepSettings(name="cached_only", at_pressure=0.9),
        ),
        description="From which pressure on, that is predicted wait by time budget, which step is in force. "
        "`smaller_ef_search` searches less of the graph; `cached_only` refuses queries whose embedding is not cached.",
    )
    smaller_ef_search_share: float = Field(
        0.6, gt=0, le=1, description="What `smaller_ef_search` leaves of the index's `ef_search`."
    )


class LimitsSettings(Section):
    """What a caller may ask for."""

    default_timeout_ms: int = Field(
        100, ge=1, le=10_000, description="Time budget of a request that names none, from arrival to answer."
    )
    max_body_bytes: int = Field(65_536, ge=1_024, description="Longest request body.")
    max_batch_body_bytes: int = Field(2_097_152, ge=1_024, description="Longest body of a `/retrieve/batch` request.")
    max_batch_requests: int = Field(
        4, ge=0, description="Most `/retrieve/batch` requests at once; one more is refused as overloaded."
    )


class FrontSettings(Section):
    """What a front process goes by."""

    server: ServerSettings
    limits: LimitsSettings


class MonitorSettings(Section):
    """Which live queries are looked at again, in the low lane."""

    recall_sample_share: float = Field(
        0.001, ge=0, le=1, description="Share of live queries that are also searched exactly, for `hlm_ann_recall`."
    )
    canary_sample_share: float = Field(
        0.01, ge=0, le=1, description="Share of stable's queries on which a canary is compared with it."
    )


class HealthSettings(Section):
    """When the service no longer calls itself well."""

    worker_stall_ms: int = Field(
        1_500, ge=100, description="How long a batch, a probe or the event loop may take before it counts as stalled."
    )


class RequestLogSettings(Section):
    """The sampled log of requests and their answers; off by default."""

    sample_share: float = Field(0.0, ge=0, le=1, description="Share of answered requests that are logged; 0 is off.")
    path: Path | None = Field(None, description="Directory of the log, one file an hour; needed where it is on.")
    query_text: Literal["hash", "text", "none"] = Field(
        "hash", description="What stands for the query: a keyed hash, its text, or nothing."
    )
    retention_days: int = Field(7, ge=1, le=3_650, description="Days after which a file is deleted.")

    @model_validator(mode="after")
    def _has_a_path_where_it_is_on(self) -> Self:
        if self.sample_share > 0 and self.path is None:
            raise ValueError("path is needed where sample_share is above 0")
        return self


class TracingSettings(Section):
    """OpenTelemetry traces; off by default."""

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^@\s?#]+$",
        description="Base address of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`; needs the extra `otel`.",
    )
    sample_share: float = Field(
        0.01, ge=0, le=1, description="Share of requests without a `traceparent` that are traced."
    )


class Settings(BaseSettings):
    """All settings. Sources, strongest first: command line, `HLM_SECTION__NAME` variables, YAML file, defaults."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, env_ignore_empty=True
    )

    release: ReleaseSettings
    canary: CanarySettings | None = None
    shadow: ShadowSettings | None = None
    swap: SwapSettings = SwapSettings()
    record: RecordSettings = RecordSettings()
    server: ServerSettings = ServerSettings()
    batching: BatchingSettings = BatchingSettings()
    inference: InferenceSettings = InferenceSettings()
    cache: CacheSettings = CacheSettings()
    overload: OverloadSettings = OverloadSettings()
    limits: LimitsSettings = LimitsSettings()
    monitor: MonitorSettings = MonitorSettings()
    health: HealthSettings = HealthSettings()
    request_log: RequestLogSettings = RequestLogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        """Requests, answers and metrics tell releases apart by their names."""
        names = [section.name for section in (self.release, self.canary, self.shadow) if section]
        if len(set(names)) < len(names):
            raise ValueError(f"release, canary and shadow need names of their own, found {', '.join(names)}")
        return self


def load_settings(path: Path | None, overrides: dict[str, Any]) -> Settings:
    """Read and check the settings.

    Args:
        path: YAML file, or None for environment and overrides alone.
        overrides: nested values from the command line, strongest of all.

    Raises:
        StartupError: the file cannot be read or a value is wrong; every wrong setting is named.
    """
    _check_environment()
    content = {} if path is None else _read_yaml(path)
    try:
        return _settings_from(content)(**overrides)
    except ValidationError as error:
        hint = "" if path else " (give --config, or --name, --encoder and --index)"
        raise StartupError(f"{describe(error, str(path or 'settings'), overrides)}{hint}") from error


def read_admin_token() -> str | None:
    """The token of the admin listener, None where there is none; a secret, so it is not among the settings.

    Raises:
        StartupError: it is too short, or cannot be sent in a header.
    """
    token = os.environ.get(ADMIN_TOKEN_VARIABLE, "").strip()  # a secret read from a file often ends with a newline
    if not token:
        return None
    if len(token) < LEAST_TOKEN_CHARACTERS or not all("!" <= character <= "~" for character in token):
        raise StartupError(
            f"{ADMIN_TOKEN_VARIABLE}: expected at least {LEAST_TOKEN_CHARACTERS} visible ASCII characters without a "
            f"space in between; `openssl rand -hex 32` makes a good token"
        )
    return token


def read_request_log_key() -> str | None:
    """The key of the query hashes in the request log, None where there is none; a secret, so not among the settings.

    Raises:
        StartupError: it is too short to hide anything.
    """
    key = os.environ.get(REQUEST_LOG_KEY_VARIABLE, "").strip()  # a secret read from a file often ends with a newline
    if not key:
        return None
    if len(key) < LEAST_KEY_CHARACTERS:
        raise StartupError(
            f"{REQUEST_LOG_KEY_VARIABLE}: expected at least {LEAST_KEY_CHARACTERS} characters, found {len(key)}; "
            f"`openssl rand -hex 32` makes a good key"
        )
    return key


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StartupError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise StartupError(f"{path}: expected sections with settings, found {type(content).__name__}")
    return content


def _check_environment() -> None:
    """Refuse a section that does not exist; the library ignores it, and a misspelt limit with it."""
    for name in os.environ:
        section, nested, _ = name.upper().removeprefix(ENV_PREFIX).partition(ENV_DELIMITER)
        if name.upper().startswith(ENV_PREFIX) and nested and section.lower() not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise StartupError(f"{name}: there is no section {section.lower()!r}; expected one of {known}")


def _settings_from(content: dict[str, Any]) -> type[Settings]:
    class SettingsFromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, _Environment(settings_cls), InitSettingsSource(settings_cls, init_kwargs=content)

    return SettingsFromFile


class _Environment(EnvSettingsSource):
    """The variables; what should be JSON and is not is left for the check of all settings, which says which it is."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Read a list, or a whole section."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
