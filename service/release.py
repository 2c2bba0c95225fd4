"""A release: the pair of encoder and index that a process serves as one object."""

from dataclasses import asdict, dataclass

from index.ad_index import AdIndex
from index.writer import AdWriter
from service.encoder import Encoder
from service.live_parts import LiveParts


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Release:
    """Encoder and index that belong together; every answer names all three versions. Equal only to itself."""

    name: str
    encoder: Encoder
    ad_index: AdIndex
    model_version: str
    index_version: str
    writer: AdWriter | None = None
    """Changes the ads; None where the index has no record."""
    live: LiveParts | None = None
    """What goes on changing, kept by this; None likewise."""

    def describe(self) -> dict[str, object]:
        """What `/info` says of it."""
        manifest = self.ad_index.manifest
        return {
            "name": self.name,
            "model_version": self.model_version,
            "index_version": self.index_version,
            "space": {"space_id": manifest.space.space_id, **manifest.space.model_dump()},
            "ads": self.ad_index.stats().ad_count,
            "segments": [segment.model_dump() for segment in manifest.segments],
            "live": self.live and asdict(self.live.index.live_stats()),
            "ann_recall": {"k": manifest.recall.k, "value": manifest.recall.ann_recall},
        }
