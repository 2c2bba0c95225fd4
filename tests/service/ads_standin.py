"""A release whose ads can be changed, without a model or a graph: a real record and writer over a dict."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from index.ad_index import AdIndex
from index.changes import AdState, State
from index.record import Record
from index.writer import AdWriter
from service.encoder import Encoder
from service.metrics import Metrics
from service.release import Release
from tests.index.records import contents, empty_record
from tests.index.support import SPACE, WordEmbedder
from tests.waiting import PATIENCE_S

MODEL = "words-1"


class Memory:
    """An index in memory, as far as changes go."""

    def __init__(self) -> None:
        self.statuses: dict[str, Any] = {}

    def apply(self, states: Sequence[State]) -> None:
        for state in states:
            if isinstance(state, AdState):
                self.statuses[state.ad_id] = state.ad and state.ad.status


class HeldUp:
    """Has a memory's next change not be over before it may be."""

    def __init__(self, memory: Memory) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._apply = memory.apply
        memory.apply = self._wait  # type: ignore[method-assign]

    def _wait(self, states: Sequence[State]) -> None:
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        self._apply(states)


class Served:
    """A release over a record of its own."""

    def __init__(
        self, path: Path, metrics: Metrics, *, embedded_by: str | None = MODEL, teacher: str = "words"
    ) -> None:
        self.path = empty_record(path)
        self.memory = Memory()
        self.embedder = WordEmbedder()
        self.record = Record(path)
        self.writer = AdWriter(self.record, self.memory, metrics.ads.committed)
        space = SPACE.model_copy(update={"teacher": teacher})
        ad_index = SimpleNamespace(manifest=SimpleNamespace(space=space, model_version=embedded_by))
        self.release = Release(
            path.stem, cast("Encoder", self.embedder), cast("AdIndex", ad_index), MODEL, "shop-1", self.writer
        )

    def ads(self) -> set[str]:
        return set(contents(self.path))


def line(ad_id: str, **fields: Any) -> bytes:
    return json.dumps({"ad_id": ad_id, "title": f"Title of {ad_id}"} | fields).encode() + b"\n"
