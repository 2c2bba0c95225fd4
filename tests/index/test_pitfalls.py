"""Pitfalls of graph libraries that no single module can rule out, and the table of all of them: docs/pitfalls.md."""

import ast
import platform
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from artifacts.manifest import HnswParams
from index.build import BuildOptions, build_index
from index.filters import Wanted
from index.load import load_index
from tests.index.support import DIM, inputs, unit_vectors, write_feed

ROOT = Path(__file__).resolve().parent.parent.parent
NAMED = re.compile(r"`(tests/[a-z_/]+\.py)(?:::(\w+))?`")


def test_every_test_that_the_table_names_is_there():
    named = NAMED.findall((ROOT / "docs" / "pitfalls.md").read_text())
    assert len(named) > 20
    for path, name in named:
        assert re.search(rf"^(def|class) {name}\b" if name else "", (ROOT / path).read_text(), re.MULTILINE), (
            path,
            name,
        )


def test_libraries_are_called_only_in_ways_that_are_safe():
    """Searches with one thread and without a callback, `ef` and labels set once, growth in a merge alone."""
    tree = ast.parse((ROOT / "index" / "hnsw.py").read_text())
    inside = {
        call.func.attr: (function.name, {word.arg: ast.unparse(word.value) for word in call.keywords})
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    }
    assert inside["knn_query"] == ("search", {"k": "min(breadth, self.count)", "num_threads": "1"})
    assert inside["set_ef"][0] == inside["set_num_threads"][0] == "__init__"
    assert inside["resize_index"][0] == "continued"
    text = (ROOT / "index" / "hnsw.py").read_text()
    assert "replace_deleted=" not in text
    assert [text.count(f"{name}(") for name in ("knn_query", "set_ef", "resize_index")] == [1, 1, 1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs binutils")
def test_hnswlib_was_not_built_for_this_cpu_alone():
    """AVX-512, which -march=native takes where there is any, has registers of its own."""
    library = find_spec("hnswlib")
    assert library is not None
    assert library.origin is not None
    with subprocess.Popen(["objdump", "--disassemble", library.origin], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        registers = {width for line in process.stdout for width in (b"%ymm", b"%zmm") if width in line}
    assert registers == {b"%ymm"}


def test_what_a_graph_cannot_reach_is_scanned(tmp_path: Path):
    """Many equal vectors with few links leave islands; the answer is whole all the same."""
    vectors = np.repeat(unit_vectors(21), 100, axis=0)
    ads = [{"ad_id": str(n), "title": "t", "embedding": vector} for n, vector in enumerate(vectors.tolist())]
    options = BuildOptions(k=10, target_recall=0.01, hnsw=HnswParams(M=2, ef_construction=8))
    build_index(inputs(write_feed(tmp_path / "feed.jsonl", ads), embeddings="feed"), tmp_path / "out", options)
    ad_index = load_index(tmp_path / "out")
    [segment] = ad_index.routing.segments
    embeddings = unit_vectors(3, DIM, seed=1)
    assert segment.linked is not None
    assert segment.linked.graph.search(embeddings, 1500) is None
    for embedding, hits in zip(embeddings, ad_index.search(embeddings, [Wanted(1500)] * 3), strict=True):
        assert len(set(hits.ad_ids)) == 1500
        assert hits.scores == pytest.approx(np.sort(vectors @ embedding)[::-1][:1500], abs=1e-5)
