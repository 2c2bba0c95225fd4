"""Artifacts on disk: atomic, verified, and refused with a sentence that names the file."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.manifest import Manifest
from artifacts.space import EmbeddingSpace
from artifacts.store import (
    ArtifactError,
    describe_files,
    fingerprint,
    is_current,
    load_manifest,
    publish,
    save_manifest,
    verify_files,
    write_atomic,
)

SPACE = EmbeddingSpace(teacher="t", revision="r", dim=4, pooling="mean", normalized=True)


def publish_example(target: Path, *, content: bytes = b"weights", inputs: str = "inputs") -> None:
    with publish(target) as staging:
        (staging / "deep").mkdir()
        (staging / "deep" / "file.bin").write_bytes(content)
        files = describe_files(staging)
        save_manifest(staging, Manifest(fingerprint=fingerprint({"a": inputs}), space=SPACE, files=files, tools={}))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    publish_example(tmp_path / "artifact")
    return tmp_path / "artifact"


def test_a_published_artifact_verifies_and_leaves_nothing_else_behind(artifact: Path):
    manifest = load_manifest(artifact, Manifest)
    verify_files(artifact, manifest.files)
    assert set(manifest.files) == {"deep/file.bin"}
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_publishing_again_replaces_the_whole(artifact: Path):
    publish_example(artifact, content=b"newer")
    verify_files(artifact, load_manifest(artifact, Manifest).files)
    assert (artifact / "deep" / "file.bin").read_bytes() == b"newer"
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_a_failed_build_keeps_the_old_artifact_and_leaves_nothing_behind(artifact: Path):
    def fail() -> None:
        with publish(artifact) as staging:
            (staging / "half").write_bytes(b"half")
            raise RuntimeError("build failed")

    with pytest.raises(RuntimeError, match="build failed"):
        fail()
    verify_files(artifact, load_manifest(artifact, Manifest).files)
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def flip_a_byte(path: Path) -> None:
    path.write_bytes(b"W" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 6 bytes where manifest.json says 7"),
        (flip_a_byte, "has sha256"),
    ],
    ids=["missing", "truncated", "flipped byte"],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_damage_is_found_and_the_file_named(artifact: Path, damage: Callable[[Path], None], message: str, threads: int):
    path = artifact / "deep" / "file.bin"
    damage(path)
    with pytest.raises(ArtifactError, match=message) as error:
        verify_files(artifact, load_manifest(artifact, Manifest).files, threads=threads)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"{", "not a valid Manifest"),
        (b"{}", "fingerprint: Field required"),
        (b'{"schema_version": 2}', "schema_version: Input should be 1"),
    ],
    ids=["missing", "not JSON", "incomplete", "newer schema"],
)
def test_a_wrong_manifest_is_one_sentence(artifact: Path, content: bytes | None, message: str):
    path = artifact / "manifest.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        load_manifest(artifact, Manifest)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_artifact_is_current_only_for_its_own_inputs_and_while_whole(artifact: Path):
    inputs = fingerprint({"a": "inputs"})
    assert is_current(artifact, Manifest, inputs)
    assert not is_current(artifact, Manifest, fingerprint({"a": "others"}))
    (artifact / "deep" / "file.bin").unlink()
    assert not is_current(artifact, Manifest, inputs)
    assert not is_current(artifact.parent / "nowhere", Manifest, inputs)


def test_fingerprints_tell_names_from_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 2, "b": 1})


def test_kill_9_while_writing_leaves_the_old_bytes(tmp_path: Path):
    """The child dies between its last write and the rename, at the worst moment."""
    path = tmp_path / "file"
    write_atomic(path, b"old")
    code = (
        "import os, pathlib, signal, sys\n"
        "from artifacts.store import write_atomic\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_space_ids_are_equal_exactly_when_spaces_are():
    assert SPACE.space_id == SPACE.model_copy().space_id
    for change in ({"dim": 5}, {"teacher": "u"}, {"revision": "s"}, {"query_prompt": "q: "}, {"normalized": False}):
        assert SPACE.model_copy(update=change).space_id != SPACE.space_id


def test_weights_named_by_their_hash_keep_their_space_when_their_folder_is_renamed():
    hashed = SPACE.model_copy(update={"revision": "sha256:abc"})
    assert hashed.space_id == hashed.model_copy(update={"teacher": "moved"}).space_id
    assert hashed.space_id != hashed.model_copy(update={"revision": "sha256:abd"}).space_id


PUBLISH_AND_DIE = """
import os, pathlib, signal, sys
from artifacts.store import publish
die_at = int(sys.argv[2])
real, renames = pathlib.Path.rename, 0
def rename(self, target):
    global renames
    renames += 1
    if renames == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
pathlib.Path.rename = rename
with publish(pathlib.Path(sys.argv[1])) as staging:
    (staging / "file").write_bytes(b"new")
"""


@pytest.mark.parametrize("die_at", [1, 2], ids=["before the old is moved aside", "between the two renames"])
def test_kill_9_while_publishing_is_mended_by_the_next(artifact: Path, die_at: int):
    child = subprocess.run([sys.executable, "-c", PUBLISH_AND_DIE, str(artifact), str(die_at)], check=False)
    assert child.returncode == -signal.SIGKILL

    def fail() -> None:
        with publish(artifact):
            raise RuntimeError("the next build fails")

    with pytest.raises(RuntimeError, match="the next build fails"):
        fail()
    verify_files(artifact, load_manifest(artifact, Manifest).files)
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_a_second_publisher_leaves_a_living_one_alone(tmp_path: Path):
    target = tmp_path / "artifact"
    with publish(target) as first:
        publish_example(target, content=b"second")
        (first / "file.bin").write_bytes(b"first")
    assert (target / "file.bin").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_nothing_but_an_artifact_is_replaced(tmp_path: Path, kind: str):
    target = tmp_path / "thesis"
    precious = target if kind == "file" else target / "chapter.txt"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("ten years of work")
    with pytest.raises(ArtifactError, match="exists and is not an artifact"):
        publish_example(target)
    assert precious.read_text() == "ten years of work"


def test_an_interrupt_between_the_two_renames_puts_the_old_artifact_back(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    real = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_example(artifact, content=b"newer")
    verify_files(artifact, load_manifest(artifact, Manifest).files)
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_a_file_that_the_manifest_does_not_list_is_refused(artifact: Path):
    (artifact / "stray.bin").write_bytes(b"?")
    with pytest.raises(ArtifactError, match=r"not listed in manifest\.json"):
        verify_files(artifact, load_manifest(artifact, Manifest).files)
