"""Artifacts on disk: written aside, synced and renamed; verified by hash when read."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from artifacts.errors import HlmError
from artifacts.manifest import MANIFEST_NAME, FileEntry, Manifest

ManifestT = TypeVar("ManifestT", bound=Manifest)


class ArtifactError(HlmError):
    """An artifact is missing, damaged or of another kind. The message is one sentence that names the file."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(parts: Mapping[str, object]) -> str:
    """Hex hash of named inputs; equal inputs give equal fingerprints in every process."""
    canonical = "\n".join(f"{name}={parts[name]!r}" for name in sorted(parts))
    return hashlib.sha256(canonical.encode()).hexdigest()


def tool_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution, leaving out those that are not installed."""
    versions = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below `directory` except its manifest, by relative path."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)
    return {
        path.relative_to(directory).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in paths
    }


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` so that a reader, or a restart after a crash, sees the old bytes or the new, never a mixture."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # artifacts are read by other users, for example in a container
            file.write(content)
        publish_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish_file(temporary: Path, path: Path) -> None:
    """Give a file that is written the name `path`, in the same directory; after a crash it is whole, or not there."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `target` when the block ends, and vanishes if it raises.

    Everything is synced before the rename, so a directory called `target` is always whole. An older `target` is moved
    aside and removed afterwards; processes that hold its files open keep them. What a killed process left behind is
    tidied up by the next one, which puts the older `target` back where it was killed between the two renames.
    """
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _recover(target)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=_scratch_prefix(target)))
    with _locked(scratch):
        try:
            (scratch / "new").mkdir()
            yield scratch / "new"
            _sync_tree(scratch / "new")
            if target.exists():
                target.rename(scratch / "old")
            (scratch / "new").rename(target)
            _sync_directory(target.parent)
        finally:
            _put_back(scratch, target)
            shutil.rmtree(scratch, ignore_errors=True)


def check_replaceable(target: Path) -> None:
    """Refuse to publish over anything that is not an artifact, since it would be removed.

    Raises:
        ArtifactError: there is a file, or a directory with other contents.
    """
    if target.is_dir() and ((target / MANIFEST_NAME).is_file() or not any(target.iterdir())):
        return
    if target.exists():
        raise ArtifactError(
            f"{target}: exists and is not an artifact; all of it would be replaced, so name another place"
        )


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into an artifact that is being staged."""
    write_atomic(directory / MANIFEST_NAME, manifest.model_dump_json(indent=2).encode() + b"\n")


def load_manifest(directory: Path, kind: type[ManifestT]) -> ManifestT:
    """Read and validate `manifest.json`.

    Raises:
        ArtifactError: it is missing, not readable as this kind, or of a schema version this build does not know.
    """
    path = directory / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); expected an artifact directory") from error
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        version = kind.model_fields["schema_version"].default
        raise ArtifactError(
            f"{path}: not a valid {kind.__name__} of schema version {version}: {where}: {first['msg']}"
        ) from error


def verify_files(directory: Path, files: Mapping[str, FileEntry], *, threads: int = 1) -> None:
    """Check that every listed file is there with the listed size and hash, and that there is no other.

    Args:
        directory: of the artifact.
        files: what its manifest lists.
        threads: how many hash, about 1 GB a second each; more than one takes cores from whoever serves beside this.

    Raises:
        ArtifactError: naming a file that differs, what was expected and what was found.
    """
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in files and name != MANIFEST_NAME:
            raise ArtifactError(f"{path}: not listed in {MANIFEST_NAME}, so nothing says whether it is whole")
    for name, entry in files.items():
        _check_size(directory / name, entry)
    largest_first = sorted(files, key=lambda name: -files[name].bytes)
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for check in [pool.submit(_check_hash, directory / name, files[name]) for name in largest_first]:
            check.result()


def _check_size(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing, but listed in {MANIFEST_NAME}")
    size = path.stat().st_size
    if size != entry.bytes:
        raise ArtifactError(f"{path}: has {size} bytes where {MANIFEST_NAME} says {entry.bytes}")


def _check_hash(path: Path, entry: FileEntry) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    if found != entry.sha256:
        raise ArtifactError(f"{path}: has sha256 {found[:12]}… where {MANIFEST_NAME} says {entry.sha256[:12]}…")


def is_current(directory: Path, kind: type[Manifest], expected_fingerprint: str) -> bool:
    """Whether `directory` holds a whole artifact made from exactly these inputs (sizes checked, not hashes)."""
    try:
        manifest = load_manifest(directory, kind)
    except ArtifactError:
        return False
    sizes_match = all(
        (directory / name).is_file() and (directory / name).stat().st_size == entry.bytes
        for name, entry in manifest.files.items()
    )
    return sizes_match and manifest.fingerprint == expected_fingerprint


def _recover(target: Path) -> None:
    """Tidy up after processes that were killed while they published `target`."""
    for scratch in target.parent.glob(f"{_scratch_prefix(target)}*"):
        with contextlib.suppress(OSError), _locked(scratch):  # whoever holds the lock is alive
            _put_back(scratch, target)
            shutil.rmtree(scratch)


def _put_back(scratch: Path, target: Path) -> None:
    """Undo the first of the two renames where the second did not come."""
    if (scratch / "old").exists() and not target.exists():
        (scratch / "old").rename(target)


def _scratch_prefix(target: Path) -> str:
    return f".{target.name}.publish-"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, which the kernel drops if this process is killed.

    Raises:
        BlockingIOError: another process holds it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
