"""The probe: what counts as an answer, when one is wanted, and what becomes of those that fail or hang."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from index.ad_index import SearchHits
from index.ads import AdTable
from service.device_faults import DeviceLostError, DeviceOutOfMemoryError
from service.metrics import Metrics
from service.probe import MOST_STUCK, PROOF_S, Probe, ProbeError, probe
from service.release import Release
from tests.waiting import wait_until

DIM = 4
NONE = SearchHits(np.zeros(0, np.int64), np.zeros(0, np.float32), AdTable([], {}, {}))
ONE = SearchHits(np.array([0]), np.array([0.5], np.float32), AdTable(["ad-0"], {}, {}))
ODD = SearchHits(np.array([0]), np.array([np.nan], np.float32), AdTable(["ad-0"], {}, {}))


def release_of(embedding: list[float], hits: SearchHits = ONE, ad_count: int = 1) -> Release:
    """A release that answers as the test wants; broken ones cannot be built from real artifacts."""
    encoder = SimpleNamespace(
        tokenize=lambda _: [101, 102], encode=lambda token_ids: np.array([embedding] * len(token_ids), np.float32)
    )
    ad_index = SimpleNamespace(
        manifest=SimpleNamespace(space=SimpleNamespace(dim=DIM)),
        search=lambda embeddings, top_k: [hits] * len(top_k),
        stats=lambda: SimpleNamespace(ad_count=ad_count),
    )
    return cast("Release", SimpleNamespace(encoder=encoder, ad_index=ad_index))


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (release_of([0.5] * 3), r"shape \(1, 3\) where \(1, 4\) was expected"),
        (release_of([np.nan] * 4), "norm nan where 1"),
        (release_of([np.inf] * 4), "norm inf where 1"),
        (release_of([0.0] * 4), "norm 0 where 1"),
        (release_of([1.0] * 4), "norm 2 where 1"),
        (release_of([0.5] * 4, NONE), "finds no ad"),
        (release_of([0.5] * 4, ODD), "scores that are not finite"),
    ],
    ids=["dim", "NaN", "infinite", "zero", "not normalised", "no hit", "odd score"],
)
def test_what_is_not_an_answer_says_what_is_wrong(release: Release, reason: str):
    with pytest.raises(ProbeError, match=reason):
        probe(release)


def test_an_answer_is_a_normalised_embedding_and_a_hit_unless_there_are_no_ads():
    probe(release_of([0.5] * 4))
    probe(release_of([0.5] * 4, NONE, ad_count=0))


class Engine:
    """Stands in for encoder and index: does what the test tells it, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.act: Callable[[], object] = lambda: None

    def __call__(self, _: Release) -> None:
        self.calls += 1
        self.act()


class Probed:
    """A probe of a made-up engine, with time moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.engine = Engine()
        self.metrics = Metrics()
        self.release: Any = object()
        self.probe = Probe(lambda: self.release, self.metrics, limit_s=1.5, clock=lambda: self.now, run=self.engine)

    def tick(self, seconds: float = 0.25, resumed_at: float = float("-inf"), *, hangs: bool = False) -> None:
        """Let time pass and tick; a probe that this starts is over afterwards, or hangs."""
        self.now += seconds
        calls = self.engine.calls
        self.probe.tick(self.now, resumed_at)
        run = self.probe._run
        if run is not None and run.started_at == self.now:
            wait_until(lambda: self.engine.calls > calls if hangs else not run.thread.is_alive())


def test_traffic_is_proof_enough():
    probed = Probed()
    for _ in range(100):
        probed.probe.proved()
        probed.tick()
    assert probed.engine.calls == 0
    assert probed.probe.problem is None


def test_an_idle_engine_is_probed_as_often_as_a_proof_is_good_for():
    probed = Probed()
    for _ in range(40):
        probed.tick()
    assert probed.engine.calls == pytest.approx(40 * 0.25 / PROOF_S, abs=1)
    assert probed.probe.problem is None


def fail() -> None:
    raise ProbeError("the index finds no ad")


def break_down() -> None:
    raise KeyError("zqxj-marker")


def test_a_failed_probe_is_a_problem_until_one_passes():
    probed = Probed()
    probed.engine.act = fail
    probed.tick(PROOF_S)
    assert probed.probe.problem == "a probe of the engine failed: the index finds no ad"
    probed.engine.act = lambda: None
    probed.tick(PROOF_S)
    assert probed.probe.problem is None


def test_a_failed_probe_is_forgotten_when_a_request_is_answered():
    probed = Probed()
    probed.engine.act = fail
    probed.tick(PROOF_S)
    probed.now += 0.1
    probed.probe.proved()
    assert probed.probe.problem is None


def test_an_unexpected_error_is_told_by_its_kind_alone(caplog: pytest.LogCaptureFixture):
    probed = Probed()
    probed.engine.act = break_down
    for _ in range(3):
        probed.tick(PROOF_S)
    assert probed.probe.problem == "a probe of the engine failed: KeyError"
    assert [record.message for record in caplog.records] == ["a probe of the engine failed"]


def test_probes_that_hang_are_a_problem_then_hopeless_and_forgiven_when_they_come_back():
    probed = Probed()
    gate = threading.Event()
    probed.engine.act = lambda: gate.wait(30)
    probed.tick(PROOF_S, hangs=True)
    assert probed.probe.problem is None
    for _ in range(100):
        probed.tick(hangs=True)
    assert probed.probe.problem == "a probe of the engine has not come back in 1.5 s"
    assert probed.engine.calls == MOST_STUCK
    assert probed.probe.hopeless
    gate.set()
    wait_until(lambda: not any(thread.is_alive() for thread in probed.probe._stuck))
    probed.tick()
    assert not probed.probe.hopeless
    assert probed.probe.problem is None


def test_a_probe_is_not_blamed_for_a_process_that_stood_still():
    probed = Probed()
    gate = threading.Event()
    probed.engine.act = lambda: gate.wait(30)
    probed.tick(PROOF_S, hangs=True)
    probed.tick(3600, resumed_at=probed.now + 3600)
    assert probed.probe.problem is None
    gate.set()


def test_doubt_wants_a_proof_at_once():
    probed = Probed()
    probed.probe.proved()
    probed.now += 0.1
    probed.probe.doubt("a worker was replaced")
    assert probed.probe.problem == "a worker was replaced"
    probed.tick()
    assert probed.probe.problem is None
    assert probed.engine.calls == 1


def test_there_is_nothing_to_probe_before_a_release_is_served():
    probed = Probed()
    probed.release = None
    probed.tick(100)
    assert probed.engine.calls == 0
    assert probed.probe.problem is None


def test_a_lost_device_is_hopeless_and_one_that_is_out_of_memory_is_not():
    probed = Probed()

    def run_out() -> None:
        raise DeviceOutOfMemoryError("the device is out of memory: CUDA failure 2")

    def lose() -> None:
        raise DeviceLostError("the device is lost: CUDA failure 700")

    probed.engine.act = run_out
    probed.tick(PROOF_S)
    assert probed.probe.problem == "a probe of the engine failed: the device is out of memory: CUDA failure 2"
    assert not probed.probe.hopeless
    probed.engine.act = lose
    probed.tick(PROOF_S)
    assert probed.probe.problem == "a probe of the engine failed: the device is lost: CUDA failure 700"
    assert probed.probe.hopeless
    calls = probed.engine.calls
    probed.tick(10 * PROOF_S)
    assert probed.engine.calls == calls
