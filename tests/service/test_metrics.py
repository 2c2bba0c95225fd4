"""Metrics: what is exposed is what docs/metrics.md says."""

import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import RequestError
from service.metrics import OUTCOMES, Metrics

ADMIN_PROBLEMS = {"release_rejected", "unauthorized", "unknown_ad", "read_only_index", "record_refused", "storage_full"}
"""Of the admin listener, whose requests are not counted."""


def exposed(metrics: Metrics) -> set[str]:
    names = set()
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        suffix = "_total" if family.type == "counter" else ""
        names.add(family.name.removesuffix("_total") + suffix)
    return {name for name in names if name.startswith("hlm_")}


def test_every_metric_is_documented_and_no_other():
    documented = set(re.findall(r"^\| `(hlm_\w+)` \|", Path("docs/metrics.md").read_text(), flags=re.MULTILINE))
    assert exposed(Metrics()) == documented


def test_every_way_to_refuse_a_request_is_an_outcome():
    problems = {error.problem for error in RequestError.__subclasses__()} | {RequestError.problem}
    assert problems - ADMIN_PROBLEMS | {"ok"} == set(OUTCOMES)


def test_every_problem_is_in_the_interface_page_with_its_status():
    page = Path("docs/api.md").read_text()
    for error in RequestError.__subclasses__():
        if error.status != 499:  # nobody is there to read it
            assert re.search(rf"^\| {error.status} \| `{error.problem}` \|", page, flags=re.MULTILINE), error
