"""A release: the pair of encoder and index that a process serves as one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifacts.manifest import EncoderManifest
from index.ad_index import AdIndex
from index.load import load_index
from service.encoder import Encoder
from service.errors import StartupError
from service.settings import ReleaseSettings

WARM_UP_QUERY = "warm up"
WARM_UP_TOP_K = 100


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """Encoder and index that belong together; every answer names all three versions. Equal to itself alone."""

    name: str
    encoder: Encoder
    ad_index: AdIndex
    model_version: str
    index_version: str

    def describe(self) -> dict[str, object]:
        """What `/info` says of it."""
        manifest = self.ad_index.manifest
        return {
            "name": self.name,
            "model_version": self.model_version,
            "index_version": self.index_version,
            "space": {"space_id": manifest.space.space_id, **manifest.space.model_dump()},
            "ads": manifest.ad_count,
            "segments": [segment.model_dump() for segment in manifest.segments],
            "ann_recall": {"k": manifest.recall.k, "value": manifest.recall.ann_recall},
        }


def load_release(settings: ReleaseSettings, batch_sizes: Sequence[int]) -> Release:
    """Load both artifacts, check that they belong together, and run each batch size once.

    Raises:
        ArtifactError: a file of one of them is missing or damaged.
        SessionError: the graph cannot be loaded.
        StartupError: they are of different embedding spaces.
    """
    encoder, manifest = Encoder.load(settings.encoder)
    ad_index = load_index(settings.index)
    _check_same_space(settings.encoder, manifest, settings.index, ad_index)
    release = Release(
        name=settings.name,
        encoder=encoder,
        ad_index=ad_index,
        model_version=manifest.model_version,
        index_version=ad_index.manifest.index_version,
    )
    _warm_up(release, batch_sizes)
    return release


def _check_same_space(encoder_path: Path, encoder: EncoderManifest, index_path: Path, ad_index: AdIndex) -> None:
    ours, theirs = encoder.space, ad_index.manifest.space
    if ours.space_id == theirs.space_id:
        return
    differing = [
        f"{name} {getattr(ours, name)!r} against {getattr(theirs, name)!r}"
        for name in type(ours).model_fields
        if getattr(ours, name) != getattr(theirs, name)
    ]
    raise StartupError(
        f"encoder {encoder_path} (space {ours.space_id}) cannot serve index {index_path} (space {theirs.space_id}): "
        + ", ".join(differing)
    )


def _warm_up(release: Release, batch_sizes: Sequence[int]) -> None:
    """Run the whole pipeline, so that no request pays for first-time allocations and page faults."""
    token_ids = release.encoder.tokenize(WARM_UP_QUERY)
    for batch_size in batch_sizes:
        embeddings = release.encoder.encode([token_ids] * batch_size)
        if not np.isfinite(embeddings).all():
            raise StartupError(f"release {release.name}: the encoder gives values that are not finite")
        release.ad_index.search(embeddings, [WARM_UP_TOP_K] * batch_size)
