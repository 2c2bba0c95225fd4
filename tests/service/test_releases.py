"""Releases over real artifacts: what is served after each wish, and what is not."""

import asyncio
import gc
import json
import re
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from artifacts.manifest import EncoderManifest
from artifacts.store import load_manifest
from service.encoder import Encoder
from service.errors import ReleaseError
from service.loading import Loaded, ReleaseLoader
from service.metrics import Metrics
from service.releases import Releases
from service.settings import ReleaseSettings, Settings, SwapSettings
from tests.service.small_artifacts import ADS, SmallArtifacts, live_opener, pair, rewrite_manifest, settings_of

GIB = 1 << 30


class SlowLoader:
    """The real loader, which waits at a gate where a test closes it, and remembers what it was asked for."""

    def __init__(self, bounds: SwapSettings) -> None:
        self.free_bytes = 8 * GIB
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loader = ReleaseLoader(bounds, 4, live_opener(), available=lambda: self.free_bytes)

    def __call__(self, wanted: ReleaseSettings, held: Sequence[Loaded], go_on: Callable[[], None]) -> Loaded:
        self.asked.append(wanted.name)
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.gate.wait(timeout=30)
        return self._loader.load(wanted, held, go_on)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """Releases that were started, with everything a test may turn."""

    def __init__(self, settings: Settings) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.loader = SlowLoader(settings.swap)
        self.releases = Releases(settings, self.metrics, self.loader, clock=self.clock)

    @property
    def last_swap(self) -> dict[str, Any]:
        swap = self.releases.status()["last_swap"]
        assert isinstance(swap, dict)
        return swap

    def series(self, start: str) -> dict[str, float]:
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith(start)}

    def asked_since(self, count: int) -> list[str]:
        return self.loader.asked[count:]


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Scene]:
    scene = Scene(settings)
    await scene.releases.start()
    try:
        yield scene
    finally:
        scene.loader.gate.set()
        await scene.releases.stop()


@pytest.fixture
def first(small: SmallArtifacts) -> ReleaseSettings:
    return pair("first", small.encoder, small.index)


def test_what_is_served_says_where_it_came_from(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            release = scene.releases.stable
            assert release is not None
            assert release.name == "first"
            status = scene.releases.status()
            assert status["canary"] is status["shadow"] is status["previous"] is status["loading"] is None
            stable = status["stable"]
            assert isinstance(stable, dict)
            assert (stable["encoder"], stable["index"]) == (str(small.encoder), str(small.index))
            assert (stable["model_version"], stable["ads"]) == (release.model_version, ADS)
            assert stable["golden"]["cosine_min"] > 0.999
            assert scene.series("hlm_index_ads") == {"hlm_index_ads": ADS}
            assert [key for key in scene.series("hlm_release_info") if 'role="stable"' in key]

    asyncio.run(scenario())


def test_a_release_that_is_wanted_before_the_first_is_loaded_takes_over_from_it(
    small: SmallArtifacts, first: ReleaseSettings
):
    async def scenario() -> None:
        scene = Scene(settings_of(first))
        scene.loader.gate.clear()
        starting = asyncio.create_task(scene.releases.start())
        await scene.loader.entered.wait()
        using = asyncio.create_task(scene.releases.use(pair("second", small.encoder, small.other_index)))
        await asyncio.wait([using], timeout=0.2)
        assert scene.loader.asked == ["first"]
        scene.loader.gate.set()
        assert (await starting).name == "first"
        assert (await using)["result"] == "swapped"
        assert scene.releases.stable is not None
        assert scene.releases.stable.name == "second"
        await scene.releases.stop()

    asyncio.run(scenario())


def test_only_the_part_that_is_new_is_loaded(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            releases = scene.releases
            one = releases.stable
            assert await releases.apply(settings_of(pair("second", small.encoder, small.other_index)))
            two = releases.stable
            assert await releases.apply(settings_of(pair("third", small.other_encoder, small.other_index)))
            three = releases.stable
            assert await releases.apply(settings_of(pair("fourth", small.other_encoder, small.other_index)))
            four = releases.stable
            assert one
            assert two
            assert three
            assert four
            assert [release.name for release in (one, two, three, four)] == ["first", "second", "third", "fourth"]
            assert two.encoder is one.encoder
            assert two.ad_index is not one.ad_index
            assert two.ad_index.manifest.ad_count == ADS + 10
            assert three.ad_index is two.ad_index
            assert three.encoder is not two.encoder
            assert three.encoder.query_tokenizer is two.encoder.query_tokenizer
            assert (four.encoder, four.ad_index) == (three.encoder, three.ad_index)

    asyncio.run(scenario())


def flip_a_bit(directory: Path, name: str) -> None:
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)


def truncate(directory: Path, name: str) -> None:
    (directory / name).write_bytes((directory / name).read_bytes()[:-1])


def remove_golden(directory: Path) -> None:
    (directory / "golden_queries.json").unlink()
    (directory / "golden_embeddings.npy").unlink()
    rewrite_manifest(directory)


def exchange_golden(directory: Path) -> None:
    path = directory / "golden_embeddings.npy"
    np.save(path, np.load(path)[::-1].copy())
    rewrite_manifest(directory)


def shorten_golden(directory: Path) -> None:
    path = directory / "golden_embeddings.npy"
    np.save(path, np.load(path)[:, :7].copy())
    rewrite_manifest(directory)


def claim_another_dim(directory: Path) -> None:
    space = json.loads((directory / "manifest.json").read_text())["space"]
    rewrite_manifest(directory, space=space | {"dim": 16})


def break_the_graph(directory: Path) -> None:
    (directory / "model.onnx").write_bytes(b"no graph")
    rewrite_manifest(directory)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "damaged model": ("encoder", lambda copy: flip_a_bit(copy, "model.onnx"), r"model\.onnx: has sha256"),
    "truncated tokenizer": (
        "encoder",
        lambda copy: truncate(copy, "tokenizer.json"),
        r"tokenizer\.json: has \d+ bytes",
    ),
    "no encoder": ("encoder", shutil.rmtree, "expected an artifact directory"),
    "manifest that is none": ("encoder", lambda copy: (copy / "manifest.json").write_text("{}"), "not a valid Encoder"),
    "no graph": ("encoder", break_the_graph, "not a graph that onnxruntime"),
    "exported by an older version": ("encoder", remove_golden, "run `hlm export` again"),
    "another checkpoint's golden embeddings": ("encoder", exchange_golden, "embedding has cosine .* where at least"),
    "golden embeddings of another length": ("encoder", shorten_golden, r"of shape \(32, 32\) is expected"),
    "dimension that is not so": ("encoder", claim_another_dim, "dim 16 against 32"),
    "damaged graph of ads": (
        "index",
        lambda copy: flip_a_bit(copy, "segments/any-any/graph.hnsw"),
        r"graph\.hnsw: has sha256",
    ),
    "missing column": ("index", lambda copy: (copy / "ads/title.blob.npy").unlink(), r"title\.blob\.npy: missing"),
    "no index": ("index", shutil.rmtree, "expected an artifact directory"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_artifact_is_refused_with_its_reason_and_the_old_release_goes_on(
    kind: str, small: SmallArtifacts, first: ReleaseSettings, tmp_path: Path
):
    part, damage, reason = DAMAGE[kind]
    copies = {name: shutil.copytree(getattr(small, name), tmp_path / name) for name in ("encoder", "index")}

    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            before = scene.releases.stable
            damage(copies[part])
            wanted = settings_of(pair("second", copies["encoder"], copies["index"]))
            assert not await scene.releases.apply(wanted)
            assert scene.releases.stable is before
            assert scene.releases.previous is None
            assert (scene.last_swap["result"], scene.last_swap["release"]) == ("rejected", "second")
            sentence = scene.last_swap["reason"]
            assert isinstance(sentence, str)
            assert "\n" not in sentence
            assert re.search(reason, sentence), sentence
            assert scene.series("hlm_release_swaps_total")['hlm_release_swaps_total{result="rejected"}'] == 1
            assert scene.releases.status()["loading"] is None
            # Put right and saved again, it is served.
            shutil.rmtree(copies[part], ignore_errors=True)
            shutil.copytree(getattr(small, part), copies[part])
            assert await scene.releases.apply(wanted)
            assert scene.releases.stable is not before

    asyncio.run(scenario())


def test_an_encoder_of_another_space_is_refused_with_both_spaces(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            assert not await scene.releases.apply(settings_of(pair("second", small.foreign_encoder, small.index)))
            theirs = load_manifest(small.foreign_encoder, EncoderManifest).space.space_id
            assert theirs in scene.last_swap["reason"]
            assert "cannot serve index" in scene.last_swap["reason"]

    asyncio.run(scenario())


def test_a_rejection_is_over_when_the_settings_ask_for_what_is_served(small: SmallArtifacts, first: ReleaseSettings):
    bad = pair("second", small.foreign_encoder, small.index)

    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            one = scene.releases.stable
            assert not await scene.releases.apply(settings_of(bad))
            assert not await scene.releases.apply(settings_of(bad, canary=bad.model_dump() | {"name": "third"}))
            assert scene.last_swap["result"] == "rejected"
            assert await scene.releases.apply(settings_of(first))
            assert (scene.last_swap["result"], scene.last_swap["release"]) == ("unchanged", "first")
            assert scene.releases.stable is one
            await scene.releases.use(bad)
            assert await scene.releases.apply(settings_of(first))
            assert scene.last_swap["result"] == "rejected"  # what the settings say is no answer to another's wish

    asyncio.run(scenario())


def test_nothing_is_served_where_the_first_release_is_bad(small: SmallArtifacts):
    async def scenario() -> None:
        scene = Scene(settings_of(pair("first", small.foreign_encoder, small.index)))
        with pytest.raises(ReleaseError, match="cannot serve index"):
            await scene.releases.start()
        assert scene.releases.stable is None

    asyncio.run(scenario())


def test_a_bad_canary_does_not_keep_the_service_from_starting(small: SmallArtifacts, first: ReleaseSettings):
    canary = {"name": "second", "encoder": small.foreign_encoder, "index": small.index}

    async def scenario() -> None:
        async with started(settings_of(first, canary=canary)) as scene:
            assert scene.releases.stable
            assert scene.releases.canary is None
            assert (scene.last_swap["result"], scene.last_swap["role"]) == ("rejected", "canary")

    asyncio.run(scenario())


def test_a_changed_share_loads_nothing(small: SmallArtifacts, first: ReleaseSettings):
    canary = {"name": "second", "encoder": small.other_encoder, "index": small.index}
    shadow = {"name": "third", "encoder": small.encoder, "index": small.other_index}

    async def scenario() -> None:
        async with started(settings_of(first, canary=canary, shadow=shadow)) as scene:
            releases = scene.releases
            held = (releases.stable, releases.canary, releases.shadow)
            assert (releases.traffic.share, releases.shadow_share) == (0.01, 0.1)
            asked = len(scene.loader.asked)
            changed = settings_of(first, canary=canary | {"share": 0.5}, shadow=shadow | {"share": 0.25})
            assert await releases.apply(changed)
            assert (releases.traffic.share, releases.shadow_share) == (0.5, 0.25)
            assert scene.asked_since(asked) == []
            assert (releases.stable, releases.canary, releases.shadow) == held
            assert await releases.apply(settings_of(first))
            assert (releases.canary, releases.shadow, releases.traffic.share) == (None, None, 0)

    asyncio.run(scenario())


def test_a_share_is_taken_away_while_another_release_is_still_loading(small: SmallArtifacts, first: ReleaseSettings):
    canary = {"name": "second", "encoder": small.other_encoder, "index": small.index, "share": 0.5}

    async def scenario() -> None:
        async with started(settings_of(first, canary=canary)) as scene:
            slow = pair("slow", small.encoder, small.other_index)
            scene.loader.gate.clear()
            scene.loader.entered.clear()
            swapping = asyncio.create_task(scene.releases.apply(settings_of(slow, canary=canary)))
            await scene.loader.entered.wait()
            loading = scene.releases.status()["loading"]
            assert isinstance(loading, dict)
            assert (loading["release"], loading["role"]) == ("slow", "stable")
            stopping = asyncio.create_task(scene.releases.apply(settings_of(slow)))
            await asyncio.sleep(0)
            assert scene.releases.canary is None
            assert scene.releases.traffic.share == 0
            scene.loader.gate.set()
            assert await swapping
            assert await stopping
            assert scene.releases.stable
            assert scene.releases.stable.name == "slow"

    asyncio.run(scenario())


def test_a_canary_becomes_stable_without_being_loaded_again(small: SmallArtifacts, first: ReleaseSettings):
    second = pair("second", small.other_encoder, small.other_index)

    async def scenario() -> None:
        async with started(settings_of(first, canary=second.model_dump())) as scene:
            retired: list[str] = []
            scene.releases.on_retired.append(lambda release: retired.append(release.name))
            canary = scene.releases.canary
            assert canary
            scene.releases.traffic.answered(canary, 0.001)
            assert await scene.releases.apply(settings_of(second))
            assert scene.releases.stable is canary
            assert scene.releases.canary is None
            assert scene.releases.previous
            assert scene.releases.previous.name == "first"
            assert retired == []
            counted = 'hlm_release_requests_total{outcome="ok",release="second"}'
            assert scene.series("hlm_release_requests_total")[counted] == 1

    asyncio.run(scenario())


def test_a_rollback_is_immediate_and_an_unrelated_edit_does_not_undo_it(small: SmallArtifacts, first: ReleaseSettings):
    second = pair("second", small.encoder, small.other_index)
    shadow = {"name": "third", "encoder": small.other_encoder, "index": small.index}

    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            releases = scene.releases
            with pytest.raises(ReleaseError, match="no previous release"):
                await releases.rollback()
            one = releases.stable
            assert await releases.apply(settings_of(second))
            two, asked = releases.stable, len(scene.loader.asked)
            assert (await releases.rollback())["result"] == "rolled_back"
            assert (releases.stable, releases.previous) == (one, two)
            assert await releases.apply(settings_of(second, shadow=shadow))
            assert (releases.stable, releases.previous) == (one, two)
            assert scene.asked_since(asked) == ["third"]

    asyncio.run(scenario())


def test_a_second_rollback_does_not_undo_the_first_and_one_can_go_forward_by_name(
    small: SmallArtifacts, first: ReleaseSettings
):
    second = pair("second", small.encoder, small.other_index)

    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            releases = scene.releases
            await releases.use(second)
            await releases.rollback()
            with pytest.raises(
                ReleaseError, match="already rolled back to first; to serve second again, use it by its name"
            ):
                await releases.rollback()
            assert releases.stable is not None
            assert releases.stable.name == "first"
            assert (await releases.use(second))["result"] == "swapped"
            assert (await releases.rollback())["release"] == "first"

    asyncio.run(scenario())


def test_a_rollback_during_a_load_wins(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            one = scene.releases.stable
            await scene.releases.apply(settings_of(pair("second", small.encoder, small.other_index)))
            scene.loader.gate.clear()
            scene.loader.entered.clear()
            loading = asyncio.create_task(
                scene.releases.apply(settings_of(pair("third", small.other_encoder, small.index)))
            )
            await scene.loader.entered.wait()
            await scene.releases.rollback()
            assert scene.releases.stable is one
            scene.loader.gate.set()
            await loading
            assert scene.releases.stable is one
            assert (scene.last_swap["result"], scene.last_swap["release"]) == ("superseded", "third")

    asyncio.run(scenario())


def test_the_newest_wish_counts(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            scene.loader.gate.clear()
            scene.loader.entered.clear()
            wishes = [
                asyncio.create_task(scene.releases.apply(settings_of(pair(name, small.encoder, small.other_index))))
                for name in ("second", "third", "fourth")
            ]
            await scene.loader.entered.wait()
            scene.loader.gate.set()
            await asyncio.gather(*wishes)
            assert scene.releases.stable
            assert scene.releases.stable.name == "fourth"
            assert scene.releases.previous
            assert scene.releases.previous.name == "first"
            assert "third" not in scene.loader.asked
            swaps = scene.series("hlm_release_swaps_total")
            assert swaps['hlm_release_swaps_total{result="superseded"}'] == 1
            assert swaps['hlm_release_swaps_total{result="swapped"}'] == 1

    asyncio.run(scenario())


def test_the_previous_release_is_kept_for_its_time_and_then_freed(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first, swap={"keep_previous_ms": 60_000})) as scene:
            releases = scene.releases
            retired: list[str] = []
            releases.on_retired.append(lambda release: retired.append(release.name))
            assert releases.stable
            gone = weakref.ref(releases.stable)
            encoder = weakref.ref(releases.stable.encoder)
            await releases.apply(settings_of(pair("second", small.other_encoder, small.other_index)))
            scene.clock.now += 59
            releases.tick()
            assert releases.previous is gone()
            gc.collect()
            gc.disable()  # a release must go by its reference count: the collector does not see what was frozen
            try:
                scene.clock.now += 1
                releases.tick()
                assert releases.previous is None
                assert gone() is None
                assert encoder() is None
            finally:
                gc.enable()
            assert retired == ["first"]
            assert not [key for key in scene.series("hlm_release") if "first" in key]

    asyncio.run(scenario())


def loaded_encoders() -> int:
    return sum(type(one) is Encoder for one in gc.get_objects())


def test_a_rejected_release_leaves_nothing_in_memory(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        bounds = {"min_golden_overlap": 1.0}  # which an int8 encoder misses
        async with started(settings_of(first, swap=bounds)) as scene:
            gc.collect()
            gc.disable()
            try:
                before = loaded_encoders()
                await scene.releases.apply(settings_of(pair("second", small.other_encoder, small.other_index)))
                assert "swap.min_golden_overlap" in scene.last_swap["reason"]
                assert loaded_encoders() == before
            finally:
                gc.enable()

    asyncio.run(scenario())


def test_a_release_that_is_not_kept_is_dropped_at_once(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first, swap={"keep_previous_ms": 0})) as scene:
            await scene.releases.apply(settings_of(pair("second", small.encoder, small.other_index)))
            assert scene.releases.previous is None

    asyncio.run(scenario())


def test_without_memory_a_release_is_refused_before_anything_is_loaded(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            before = scene.releases.stable
            scene.loader.free_bytes = 70_000_000
            assert not await scene.releases.apply(settings_of(pair("second", small.other_encoder, small.index)))
            assert scene.releases.stable is before
            assert "release second: needs about 26 MB of memory" in scene.last_swap["reason"]
            assert "70 MB are free" in scene.last_swap["reason"]
            # A release whose parts are there already needs none.
            assert await scene.releases.apply(settings_of(pair("third", small.encoder, small.index)))

    asyncio.run(scenario())


def test_the_previous_release_makes_room_for_the_next(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            await scene.releases.apply(settings_of(pair("second", small.encoder, small.other_index)))
            assert scene.releases.previous
            gone = weakref.ref(scene.releases.previous)
            scene.loader.free_bytes = 0
            freed = weakref.finalize(scene.releases.previous, setattr, scene.loader, "free_bytes", GIB)
            assert await scene.releases.apply(settings_of(pair("third", small.other_encoder, small.other_index)))
            assert gone() is None
            assert not freed.alive
            assert scene.releases.previous.name == "second"

    asyncio.run(scenario())


def test_using_a_release_looks_at_its_artifacts_again(small: SmallArtifacts, tmp_path: Path):
    index = shutil.copytree(small.index, tmp_path / "index")
    served = pair("first", small.encoder, index)

    async def scenario() -> None:
        async with started(settings_of(served)) as scene:
            before = scene.releases.stable
            assert (await scene.releases.use(served))["result"] == "unchanged"
            assert scene.releases.stable is before
            shutil.rmtree(index)
            shutil.copytree(small.other_index, index)
            assert (await scene.releases.use(served))["result"] == "swapped"
            assert scene.releases.stable
            assert scene.releases.stable.ad_index.manifest.ad_count == ADS + 10
            assert before
            assert scene.releases.stable.encoder is before.encoder
            shutil.rmtree(index)
            outcome = await scene.releases.use(served)
            assert outcome["result"] == "rejected"
            assert "manifest.json" in str(outcome["reason"])

    asyncio.run(scenario())


def test_a_load_ends_when_the_service_stops(small: SmallArtifacts, first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            scene.loader.gate.clear()
            scene.loader.entered.clear()
            loading = asyncio.create_task(
                scene.releases.apply(settings_of(pair("second", small.encoder, small.other_index)))
            )
            await scene.loader.entered.wait()
            await scene.releases.stop()
            scene.loader.gate.set()
            assert not await loading
            assert "the service is stopping" in scene.last_swap["reason"]

    asyncio.run(scenario())


def test_settings_that_cannot_be_read_are_a_rejection(first: ReleaseSettings):
    async def scenario() -> None:
        async with started(settings_of(first)) as scene:
            scene.releases.reject("serve.yaml: cannot be read")
            assert (scene.last_swap["result"], scene.last_swap["reason"]) == ("rejected", "serve.yaml: cannot be read")
            assert scene.series("hlm_release_swaps_total")['hlm_release_swaps_total{result="rejected"}'] == 1
            assert await scene.releases.apply(settings_of(first))
            assert (scene.last_swap["result"], scene.last_swap["release"]) == ("unchanged", "first")

    asyncio.run(scenario())
