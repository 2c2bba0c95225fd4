"""Artifacts to swap: indexes whose ads nobody can confuse, and artifacts that no server may accept."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifacts.manifest import MANIFEST_NAME
from artifacts.store import describe_files, write_atomic
from benchmarks.errors import BenchmarkError

PREFIXES = ("a", "b")


def prefixed_feed(feed: bytes, prefix: str) -> bytes:
    """A feed of JSON lines with a prefix before each ad_id; bytes in and out are gzip's."""
    lines = [json.loads(line) for line in gzip.decompress(feed).splitlines() if line.strip()]
    renamed = [line | {"ad_id": f"{prefix}-{line['ad_id']}"} for line in lines]
    return gzip.compress("".join(json.dumps(line) + "\n" for line in renamed).encode(), mtime=0)


def build_indexes(feed: Path, encoder: Path, directory: Path) -> list[Path]:
    """Two indexes of one feed's ads, in `directory`, each with ids of its own; they are kept where up to date.

    Raises:
        BenchmarkError: one could not be built.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return [_build_index(feed, encoder, directory, prefix) for prefix in PREFIXES]


def _build_index(feed: Path, encoder: Path, directory: Path, prefix: str) -> Path:
    own_feed = directory / f"{prefix}.jsonl.gz"
    write_atomic(own_feed, prefixed_feed(feed.read_bytes(), prefix))
    command = [sys.executable, "hlm.py", "index", "build", "--feed", str(own_feed)]
    command += ["--encoder", str(encoder), "--out", str(directory / prefix)]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise BenchmarkError(f"the index of {own_feed} could not be built; its error is above")
    return directory / prefix


@dataclass(frozen=True, slots=True)
class BadRelease:
    """A release that has to be refused."""

    title: str
    encoder: Path
    index: Path
    reason_has: str
    """What the reason has to name for a person to find the fault."""


_Damage = Callable[[Path], None]
_DAMAGES: tuple[tuple[str, str, str, _Damage], ...]


def bad_releases(encoder: Path, index: Path, directory: Path) -> list[BadRelease]:
    """Releases with one fault each, as copies of good artifacts in `directory`."""
    found = []
    for title, kind, reason_has, damage in _DAMAGES:
        source = encoder if kind == "encoder" else index
        copy = directory / title.replace(" ", "-")
        shutil.copytree(source, copy)
        damage(copy)
        pair = (copy, index) if kind == "encoder" else (encoder, copy)
        found.append(BadRelease(title, *pair, reason_has))
    return [*found, BadRelease("missing directory", encoder, directory / "nowhere", "nowhere")]


def _flip_byte(artifact: Path) -> None:
    content = bytearray((artifact / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / "model.onnx").write_bytes(content)


def _truncate_graph(artifact: Path) -> None:
    content = (artifact / "model.onnx").read_bytes()
    (artifact / "model.onnx").write_bytes(content[: len(content) // 2])


def _remove_tokenizer(artifact: Path) -> None:
    (artifact / "tokenizer.json").unlink()


def _change_space(artifact: Path) -> None:
    manifest = json.loads((artifact / MANIFEST_NAME).read_text())
    manifest["space"]["pooling"] = "cls" if manifest["space"]["pooling"] != "cls" else "mean"
    (artifact / MANIFEST_NAME).write_text(json.dumps(manifest))


def _halve_dimension(artifact: Path) -> None:
    """Embeddings of half the length, with a manifest whose hashes are right: only a look at the shapes tells."""
    path = artifact / "vectors.npy"
    vectors = np.load(path)
    np.save(path, np.ascontiguousarray(vectors[:, : vectors.shape[1] // 2]))
    manifest = json.loads((artifact / MANIFEST_NAME).read_text())
    files = {name: entry.model_dump() for name, entry in describe_files(artifact).items()}
    (artifact / MANIFEST_NAME).write_text(json.dumps(manifest | {"files": files}))


def _write_no_json(artifact: Path) -> None:
    (artifact / MANIFEST_NAME).write_text("not JSON")


_DAMAGES = (
    ("corrupted byte", "encoder", "model.onnx", _flip_byte),
    ("truncated graph", "encoder", "model.onnx", _truncate_graph),
    ("missing file", "encoder", "tokenizer.json", _remove_tokenizer),
    ("wrong space", "encoder", "pooling", _change_space),
    ("wrong dimension", "index", "shape", _halve_dimension),
    ("manifest without JSON", "index", MANIFEST_NAME, _write_no_json),
)
