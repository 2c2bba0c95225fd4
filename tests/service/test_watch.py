"""The configuration file, changed in every way in which people and their tools change one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from service.settings import Settings, load_settings
from service.watch import ConfigWatch

TEXT = "release: {{name: {name}, encoder: e, index: i}}\nserver: {{port: {port}}}\n"


class Recorder:
    """Stands in for releases: remembers what it was to serve, and rejects what it is told to."""

    def __init__(self) -> None:
        self.applied: list[Settings] = []
        self.rejected: list[str] = []
        self.accepts = True

    async def apply(self, settings: Settings) -> bool:
        self.applied.append(settings)
        return self.accepts

    def reject(self, reason: str) -> None:
        self.rejected.append(reason)

    @property
    def names(self) -> list[str]:
        return [settings.release.name for settings in self.applied]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(path: Path, **overrides: dict[str, object]) -> AsyncIterator[tuple[Recorder, ConfigWatch]]:
    recorder = Recorder()

    def read() -> Settings:
        return load_settings(path, dict(overrides))

    watch = ConfigWatch(path, read, read(), recorder)
    running = asyncio.create_task(watch.run())
    try:
        yield recorder, watch
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def write_text(path: Path, text: str) -> None:
    path.write_text(text)


def write(path: Path, name: str, port: int = 1) -> None:
    write_text(path, TEXT.format(name=name, port=port))


def edit_in_place(path: Path, name: str) -> None:
    write(path, name)


def replace_by_rename(path: Path, name: str) -> None:
    write(path.with_suffix(".new"), name)
    path.with_suffix(".new").replace(path)


def remove_and_write(path: Path, name: str) -> None:
    path.unlink()
    write(path, name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    write(path, "a")
    return path


@pytest.mark.parametrize("change", [edit_in_place, replace_by_rename, remove_and_write])
def test_a_changed_file_is_applied(config: Path, change: Callable[[Path, str], None]):
    async def scenario() -> None:
        async with watching(config) as (recorder, _):
            change(config, "b")
            await until(lambda: recorder.names[-1:] == ["b"])
            change(config, "c")
            await until(lambda: recorder.names[-1:] == ["c"])

    asyncio.run(scenario())


def test_links_set_anew_count_as_a_change(tmp_path: Path):
    """As Kubernetes mounts a ConfigMap: serve.yaml → ..data/serve.yaml, and ..data → ..2026_1."""
    for name in ("a", "b", "c"):
        (tmp_path / f"..{name}").mkdir()
        write(tmp_path / f"..{name}" / "serve.yaml", name)
    (tmp_path / "..data").symlink_to("..a")
    (tmp_path / "serve.yaml").symlink_to("..data/serve.yaml")

    def publish(name: str) -> None:
        (tmp_path / "..data_tmp").symlink_to(f"..{name}")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    async def scenario() -> None:
        async with watching(tmp_path / "serve.yaml") as (recorder, _):
            for name in ("b", "c"):
                publish(name)
                await until(lambda name=name: recorder.names[-1:] == [name])

    asyncio.run(scenario())


def test_a_file_that_a_link_leads_to_is_watched_where_it_is(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "shared").mkdir()
    write(tmp_path / "shared" / "real.yaml", "a")
    (tmp_path / "etc" / "serve.yaml").symlink_to(tmp_path / "shared" / "real.yaml")

    async def scenario() -> None:
        async with watching(tmp_path / "etc" / "serve.yaml") as (recorder, _):
            write(tmp_path / "shared" / "real.yaml", "b")
            await until(lambda: recorder.names == ["b"])

    asyncio.run(scenario())


def test_the_same_content_written_again_is_no_change(config: Path):
    async def scenario() -> None:
        async with watching(config) as (recorder, watch):
            write(config, "a")
            await watch.look()
            write(config, "b")
            await until(lambda: recorder.names == ["b"])

    asyncio.run(scenario())


def test_a_bad_file_is_rejected_and_the_next_good_one_applied(config: Path):
    async def scenario() -> None:
        async with watching(config) as (recorder, _):
            write_text(config, "release: {name: b")
            await until(lambda: len(recorder.rejected) == 1)
            assert "cannot be read as YAML" in recorder.rejected[0]
            assert str(config) in recorder.rejected[0]
            assert recorder.applied == []
            write(config, "c")
            await until(lambda: recorder.names == ["c"])

    asyncio.run(scenario())


def test_after_a_rejection_saving_the_file_again_tries_again(config: Path):
    async def scenario() -> None:
        async with watching(config) as (recorder, _):
            recorder.accepts = False
            write(config, "b")
            await until(lambda: recorder.names == ["b"])
            recorder.accepts = True
            write(config, "b")
            await until(lambda: recorder.names == ["b", "b"])

    asyncio.run(scenario())


def test_what_overrides_the_file_still_does(config: Path):
    async def scenario() -> None:
        async with watching(config, release={"name": "given"}) as (recorder, _):
            write_text(config, "release: {name: b, encoder: other, index: i}\n")
            await until(lambda: len(recorder.applied) == 1)
            assert (recorder.names, recorder.applied[0].release.encoder) == (["given"], Path("other"))

    asyncio.run(scenario())


def test_settings_that_take_a_restart_are_named(config: Path, caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        async with watching(config) as (recorder, _):
            write(config, "b", port=2)
            await until(lambda: recorder.names == ["b"])

    asyncio.run(scenario())
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"{config}: server.port changed, which takes a restart"


def test_where_nothing_can_be_watched_the_file_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_watches_left(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    async def scenario() -> None:
        path = tmp_path / "serve.yaml"
        write(path, "one")
        monkeypatch.setattr("service.watch.awatch", no_watches_left)
        monkeypatch.setattr("service.watch.LOOK_EVERY_MS", 10)
        async with watching(path) as (recorder, _):
            await asyncio.sleep(0)
            write(path, "two")
            await until(lambda: recorder.names == ["two"])

    asyncio.run(scenario())
