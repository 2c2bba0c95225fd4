"""Settings: sources, precedence, messages, and the page that documents them."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.errors import StartupError
from service.settings import Settings, load_settings, read_request_log_key

RELEASE = "release: {name: a, encoder: e, index: i}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(RELEASE + "server: {port: 1000}\nbatching: {max_batch_size: 3}\n")
    return path


def test_command_line_beats_environment_beats_file_beats_default(config: Path, monkeypatch: pytest.MonkeyPatch):
    assert load_settings(config, {}).server.port == 1000
    monkeypatch.setenv("HLM_SERVER__PORT", "2000")
    monkeypatch.setenv("HLM_LIMITS__DEFAULT_TIMEOUT_MS", "7")
    settings = load_settings(config, {"server": {"port": 3000}, "release": {"name": "b"}})
    assert settings.server.port == 3000
    assert load_settings(config, {}).server.port == 2000
    assert settings.limits.default_timeout_ms == 7
    assert settings.batching.max_batch_size == 3
    assert (settings.release.name, settings.release.encoder) == ("b", Path("e"))
    assert settings.server.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "release: is missing"),
        (
            RELEASE + "batching: {max_batch_size: 0}",
            "batching.max_batch_size: expected at least 1, found 0",
        ),
        (RELEASE + "batching: {max_batch_sise: 8}", "batching.max_batch_sise: there is no such setting"),
        (RELEASE + "colour: red", "colour: there is no such setting"),
        (RELEASE + "server: {port: many}", "server.port: expected a whole number, found 'many'"),
        (
            RELEASE + "canary: {name: a, encoder: f, index: j}",
            "release, canary and shadow need names of their own, found a, a",
        ),
        (RELEASE + "canary: {name: b, encoder: f, index: j, share: 2}", "canary.share: expected at most 1, found 2"),
        (RELEASE + "request_log: {sample_share: 0.1}", "request_log: path is needed where sample_share is above 0"),
        (RELEASE + "tracing: {otlp_endpoint: 'http://me:secret@x'}", "tracing.otlp_endpoint: expected text that match"),
        (
            RELEASE + "cache: {result_ttl_ms: 2000}",  # changes have to be obeyed within a second
            "cache.result_ttl_ms: expected at most 1000, found 2000",
        ),
        (RELEASE + "server: 8080", "server: expected settings by name, found 8080"),
        (
            RELEASE + "server: {log_level: chatty}",
            "server.log_level: expected 'debug', 'info', 'warning' or",
        ),
        (RELEASE + "overload: {steps: 5}", "overload.steps: expected a list, found 5"),
        ("release: {name: a", "cannot be read as YAML"),
        ("just words", "expected sections with settings, found str"),
        ("1: 2", "expected sections with settings"),
    ],
    ids=[
        *("no release", "out of range", "misspelt setting", "misspelt section", "wrong type"),
        *("one name for two", "share over 1"),
        *("request log without path", "a password that /info would show"),
        *("results kept for too long", "not a section", "none of those", "not a list"),
        *("not YAML", "a scalar", "a number as name"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_file_and_setting(tmp_path: Path, text: str, message: str):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(StartupError, match=re.escape(message)) as error:
        load_settings(path, {})
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(StartupError, match=r"nowhere\.yaml: no such configuration file"):
        load_settings(tmp_path / "nowhere.yaml", {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HLM_SEVER__PORT", "1", "there is no section 'sever'"),
        ("HLM_SERVER__PROT", "1", "server.prot: there is no such setting"),
        ("HLM_SERVER", "8080", "server: expected settings by name, found 8080"),
        ("HLM_SERVER", "{", "server: expected settings by name, found '{'"),
        ("HLM_SERVER__PORT", "99999", "server.port: expected at most 65535, found '99999'"),
        ("hlm_server__port", "many", "server.port: expected a whole number, found 'many'"),
        ("HLM_OVERLOAD__STEPS", "all", "overload.steps: expected a list, found 'all'"),
        ("HLM_OVERLOAD__STEPS", '[{"name": "nap", "at_pressure": 1}]', "overload.steps.0.name: expected 'smaller_ef_"),
    ],
    ids=["section", "setting", "not a section", "not JSON", "range", "lower case", "not a list", "in a list"],
)
def test_a_wrong_variable_is_named(config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as error:
        load_settings(config, {})
    assert str(error.value).startswith(f"{name}: {message}")
    assert str(config) not in str(error.value)


def test_all_that_is_wrong_is_said_with_where_it_comes_from(config: Path, monkeypatch: pytest.MonkeyPatch):
    config.write_text(RELEASE + "server: {port: -1}\nbatching: {workers: 0, max_queue_size: 1}\n")
    monkeypatch.setenv("HLM_BATCHING__WORKERS", "few")
    with pytest.raises(StartupError) as error:
        load_settings(config, {"server": {"port": -2}})
    assert str(error.value) == (
        "command line: server.port: expected at least 0, found -2; "
        f"{config}: batching.max_queue_size: expected at least 2, found 1; "
        "HLM_BATCHING__WORKERS: batching.workers: expected a whole number, found 'few'"
    )


def test_settings_cannot_be_changed(config: Path):
    with pytest.raises(ValueError, match="frozen"):
        load_settings(config, {}).server.port = 1  # type: ignore[misc]


def test_the_key_of_the_request_log_is_a_secret_that_cannot_be_guessed(monkeypatch: pytest.MonkeyPatch):
    assert read_request_log_key() is None
    monkeypatch.setenv("HLM_REQUEST_LOG_KEY", "0123456789abcdef\n")
    assert read_request_log_key() == "0123456789abcdef"
    monkeypatch.setenv("HLM_REQUEST_LOG_KEY", "12345")
    with pytest.raises(StartupError, match="HLM_REQUEST_LOG_KEY: expected at least 16 characters, found 5"):
        read_request_log_key()


def documented_settings() -> dict[str, tuple[str, str]]:
    """Setting → (default, description), as the tables of docs/configuration.md have them."""
    page = Path("docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*?) \|$", page, flags=re.MULTILINE)
    return {name: (default, description) for name, default, description in rows}


def shown(field: FieldInfo) -> object:
    """A default, as one writes it in the file."""
    if not isinstance(field.default, tuple):
        return field.default
    return json.dumps([one.model_dump() for one in field.default]).replace('"', "")


def actual_settings() -> dict[str, tuple[str, str]]:
    found = {}
    for section, outer in Settings.model_fields.items():
        models = [one for one in get_args(outer.annotation) or (outer.annotation,) if one is not type(None)]
        [model] = models
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else "none" if field.default is None else f"`{shown(field)}`"
            found[f"{section}.{name}"] = (default, field.description or "")
    return found


def test_every_setting_is_documented_with_its_default_and_no_other():
    assert documented_settings() == actual_settings()


@pytest.mark.parametrize("path", sorted(Path("config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_example_files_are_valid(path: Path):
    assert load_settings(path, {}).release.name
