"""Who may import whom: the table of docs/architecture.md, checked against every import statement."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("artifacts", "benchmarks", "client", "export", "index", "loadtest", "samples", "service", "train")
LEAVES = {"cores", "memory", "plots", "terminal"}
MAY_IMPORT = {
    "artifacts": set(),
    "index": {"artifacts"},
    "service": {"artifacts", "index"},
    "export": {"artifacts", "index", "service"},
    "client": {"artifacts"},
    "samples": {"artifacts"},
    "loadtest": {"artifacts"},
    "train": {"artifacts", "client", "export", "index", "service"},
    "benchmarks": {"artifacts", "export", "index", "loadtest", "service", "train"},
}
ONLY_IMPORTER = {
    "onnxruntime": "service/session.py",
    "faiss": "index/faiss_graph.py",
    "hnswlib": "index/hnsw.py",
    "matplotlib": "index/build_report.py",
    "opentelemetry": "service/spans.py",
    "pynvml": "service/gpu.py",
}
ONLINE = ("artifacts", "index", "service")
OFFLINE_LIBRARIES = {"torch", "transformers", "optimum", "sentence_transformers", "ir_measures"}


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            roots.add((node.module or "").split(".")[0])
    return roots


def modules(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room: str):
    allowed = MAY_IMPORT[room] | LEAVES | {room}
    for path in modules(room):
        if path.name != "cli.py":  # commands put rooms together
            assert imported_roots(path) & set(ROOMS) <= allowed, path


@pytest.mark.parametrize("room", ONLINE)
def test_the_online_rooms_never_import_offline_libraries(room: str):
    for path in modules(room):
        assert not imported_roots(path) & OFFLINE_LIBRARIES, path


@pytest.mark.parametrize(("library", "owner"), ONLY_IMPORTER.items())
def test_one_module_alone_imports(library: str, owner: str):
    importers = {
        path.relative_to(ROOT).as_posix()
        for room in ("artifacts", "client", "index", "samples", "service")
        for path in modules(room)
        if library in imported_roots(path)
    }
    assert importers == {owner}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_imported_by_name_and_never_whole(room: str):
    """`import index` would shadow half of all local variables."""
    for path in modules(room):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & set(ROOMS), path


def test_serving_loads_neither_torch_nor_transformers():
    code = "import sys, hlm, service.server; print(sorted({'torch', 'transformers', 'optimum'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_serving_is_never_patched_by_gevent():
    """Locust patches sockets and threads of its whole process, so it may be loaded by a running load test alone."""
    code = "import sys, hlm, service.server; print(sorted({'gevent', 'locust'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_load_tests_never_load_the_service():
    code = "import sys, loadtest.locustfile, loadtest.measure; print('service' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_no_installed_distribution_shadows_our_rooms():
    """An editable path comes after site-packages, so a package of PyPI called `index` would win."""
    owners = importlib.metadata.packages_distributions()
    for name in (*ROOMS, *LEAVES, "hlm"):
        assert set(owners.get(name, ["hlm-retrieval"])) == {"hlm-retrieval"}, name


def test_the_wheel_takes_every_room_and_module_along():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    rooms = {f"{room}/**/*.py" for room in ROOMS if room != "benchmarks"}
    modules = {f"{name}.py" for name in (*LEAVES, "hlm")}
    data = {"export/data/*", "loadtest/report.html", "train/recipes/*"}
    assert set(hatch["build"]["targets"]["wheel"]["include"]) == rooms | modules | data


def test_the_image_takes_every_room_and_module_along():
    copied, sent = (ROOT / "Dockerfile").read_text().split(), (ROOT / ".dockerignore").read_text().split()
    modules = {f"{name}.py" for name in (*LEAVES, "hlm")} | {room for room in ROOMS if room != "benchmarks"}
    assert modules <= set(copied)
    assert modules <= {name.removeprefix("!") for name in sent}
