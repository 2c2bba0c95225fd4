import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, ExportOptions

ROOT = Path(__file__).resolve().parents[2]


def hlm(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own, with no model hub to ask."""
    return subprocess.run(
        [sys.executable, ROOT / "hlm.py", *map(str, arguments)],
        check=False,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="session")
def titles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of the shipped titles: a corpus that takes a second."""
    path = tmp_path_factory.mktemp("texts") / "titles.txt"
    with gzip.open(DEFAULT_CORPUS, "rt", encoding="utf-8") as file:
        path.write_text("".join(file.readlines()[:300]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of the shipped queries."""
    path = tmp_path_factory.mktemp("texts") / "queries.txt"
    with gzip.open(DEFAULT_QUERIES, "rt", encoding="utf-8") as file:
        path.write_text("".join(file.readlines()[:100]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def options(titles: Path, queries: Path) -> ExportOptions:
    return ExportOptions(
        precision="fp32", max_query_tokens=64, max_ad_tokens=256, min_overlap=0.95, queries=queries, corpus=titles
    )
