"""The Prometheus alert rules: whole, and about metrics that the service has."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import OUTCOMES, Metrics

RULES = [
    rule
    for group in yaml.safe_load(Path("deploy/prometheus/rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}


def series() -> set[str]:
    """The names under which Prometheus stores what the service exposes."""
    names = set()
    for family in text_string_to_metric_families(generate_latest(Metrics().registry).decode()):
        names |= {family.name + suffix for suffix in SUFFIXES.get(family.type, ("",))}
        names |= {sample.name for sample in family.samples}
    return names


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert "HlmAnnRecallLow" in names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule):
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"Hlm[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(text.strip() for text in rule["annotations"].values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_and_outcomes_that_exist(rule):
    named = set(re.findall(r"\bhlm_\w+", rule["expr"]))
    assert named <= series()
    assert named or rule["expr"].startswith("up{")
    assert set(re.findall(r'outcome="(\w+)"', rule["expr"])) <= set(OUTCOMES)
