"""The lock files: what production installs is pinned and checked by hash, and is what the tests ran on."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HASHED = ("serve", "otel", "faiss", "gpu", "build")
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.+!]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, str]:
    """Distribution → version, of a lock file that holds nothing else: no address, no option."""
    header, text = (ROOT / "requirements" / f"{name}.txt").read_text().split("\n", 1)
    assert header.startswith(f"# Environment `{name}`, ")
    versions = {}
    for entry in text.replace("\\\n", " ").splitlines():
        pin, *hashes = entry.split()
        match = PIN.fullmatch(pin)
        assert match, f"{name}.txt: {entry}"
        assert all(HASH.fullmatch(item) for item in hashes), f"{name}.txt: {entry}"
        assert bool(hashes) == (name in HASHED), f"{name}.txt: {pin}"
        versions[normal(match["name"])] = match["version"]
    return versions


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", [*HASHED, "dev", "offline"])
def test_every_line_of_a_lock_is_a_pin_with_hashes_where_production_installs_it(name: str):
    assert len(locked(name)) > 5


@pytest.mark.parametrize(
    ("name", "extra"),
    [("serve", "cpu"), ("otel", "cpu"), ("otel", "otel"), ("faiss", "cpu"), ("faiss", "faiss"), ("gpu", "gpu")],
)
def test_production_locks_hold_every_dependency_that_is_declared(name: str, extra: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"][extra]
    names = {normal(re.split(r"[\[=<>~!]", requirement)[0]) for requirement in declared}
    assert names <= set(locked(name))


@pytest.mark.parametrize("name", HASHED)
def test_production_has_the_versions_that_the_tests_ran_on(name: str):
    tested = locked("dev")
    shared = {name: version for name, version in locked(name).items() if name in tested}
    assert shared == {name: tested[name] for name in shared}
    assert "numpy" in shared
