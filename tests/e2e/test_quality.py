"""Real ads, real queries, human judgments: through HTTP, the answers are as good as exact search in fp32."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import CACHE, DATA, Server, hlm
from tests.slow import SLOW

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not DATA.exists(), reason="the optional data set ../shared/data is not here"),
]

EXACT_FP32 = {"homedepot": 0.660, "esci": 0.855, "icecat": 0.898}
"""recall@100 of grade-2 ads by exact search with the PyTorch original, over each set's own ads."""
TOLERANCE = 0.01


@pytest.mark.parametrize("name", [pytest.param("homedepot", marks=SLOW), "esci", "icecat"])
def test_recall_of_grade_2_ads_is_that_of_exact_search(name: str, encoder: Path, start: Callable[..., Server]):
    data = DATA / name
    queries, qrels, out = data / "queries.dev.tsv", data / "qrels.dev.tsv", CACHE / "indexes" / name
    # Graphs differ from build to build: at the default target of 0.97 homedepot gave 0.6547 once and 0.6496 once.
    options = ["--encoder", encoder, "--queries", queries, "--target-recall", "0.985"]
    hlm("index", "build", "--feed", data / "ads.jsonl.gz", "--out", out, *options)
    server = start("--index", out)
    result = hlm("evaluate", "--url", server.url, "--queries", queries, "--qrels", qrels, "--json")
    measured = {measure["measure"]: measure["value"] for measure in json.loads(result.stdout)["measures"]}
    assert measured["R(rel=2)@100"] >= EXACT_FP32[name] - TOLERANCE
