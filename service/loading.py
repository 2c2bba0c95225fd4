"""Loads a release beside those that are served: what is new is read, verified and warmed up, the rest is shared."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from artifacts.golden import Golden, load_golden
from artifacts.manifest import EncoderManifest, IndexManifest
from artifacts.space import EmbeddingSpace
from artifacts.store import load_manifest
from cores import usable_cores
from index.ad_index import AdIndex
from index.load import load_index, needed_bytes
from memory import available_bytes
from service.encoder import MODEL_NAME, Encoder
from service.errors import ReleaseError
from service.execution_providers import CPU_ONLY, ExecutionProviders
from service.live_parts import LiveOpener, LiveParts
from service.release import Release
from service.settings import ReleaseSettings, SwapSettings
from service.verify import Figures, verify, warm_up

ENCODER_FACTOR = 2
ENCODER_BYTES = 24_000_000
"""onnxruntime holds weights as they are in the file and packed for its kernels; tokenizer and first runs come on top.
int8 MiniLM of 23 MB takes 54 MB."""
RESERVE_BYTES = 64_000_000
"""Left free for requests, and for what the estimate misses."""

logger = logging.getLogger(__name__)


class MemoryShortError(ReleaseError):
    """A release does not fit beside those that are loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A release that may be served, and where it came from."""

    release: Release
    settings: ReleaseSettings
    encoder_manifest: EncoderManifest
    index_manifest: IndexManifest
    golden: Golden
    figures: Figures
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def has_encoder(self, directory: Path, manifest: EncoderManifest) -> bool:
        """Whether its encoder is this artifact: the same directory, and nothing in it replaced since."""
        return self.settings.encoder.resolve() == directory.resolve() and self.encoder_manifest == manifest

    def has_index(self, wanted: ReleaseSettings, manifest: IndexManifest) -> bool:
        """Whether its index is this artifact, with the same record."""
        return (
            self.settings.index.resolve() == wanted.index.resolve()
            and self.index_manifest == manifest
            and self.has_record(wanted.record)
        )

    def has_record(self, record: Path | None) -> bool:
        """Whether its ads are changed by this record; None stands for none."""
        ours = self.settings.record
        return (ours and ours.resolve()) == (record and record.resolve())


@dataclass(frozen=True, slots=True)
class ReleaseLoader:
    """Loads releases; blocks, so it is called in a thread of its own."""

    bounds: SwapSettings
    max_batch_size: int
    live: LiveOpener
    providers: ExecutionProviders = CPU_ONLY
    available: Callable[[], int | None] = available_bytes

    def load(self, wanted: ReleaseSettings, held: Sequence[Loaded], go_on: Callable[[], None]) -> Loaded:
        """Load both artifacts, check that they belong together and answer as they should, and warm them up.

        Args:
            wanted: what to load.
            held: releases that are in memory. An encoder or index that one of them has is shared; where one has both
                and the name, it comes back itself.
            go_on: called before each long step; what it raises ends the load.

        Raises:
            ArtifactError: a file of an artifact is missing or damaged.
            SessionError: the graph of the encoder cannot be loaded.
            ExecutionProviderError: what it is to run on cannot be had.
            MemoryShortError: there is not enough memory for what is new.
            RecordError: the record cannot be used.
            ReleaseError: the two are of different embedding spaces, or do not answer as their manifests promise.
        """
        encoder_manifest = load_manifest(wanted.encoder, EncoderManifest)
        index_manifest = load_manifest(wanted.index, IndexManifest)
        with_encoder = [one for one in held if one.has_encoder(wanted.encoder, encoder_manifest)]
        with_index = [one for one in held if one.has_index(wanted, index_manifest)]
        with_both = [one for one in with_encoder if one in with_index]
        for one in with_both:
            if one.release.name == wanted.name:
                return one
        _check_same_space(wanted, encoder_manifest.space, index_manifest.space)
        self._check_memory(wanted, None if with_encoder else encoder_manifest, None if with_index else index_manifest)
        go_on()
        if with_encoder:
            encoder, encoder_manifest, golden = _encoder_of(with_encoder[0])
        else:
            encoder, encoder_manifest, golden = _load_encoder(wanted.encoder, held, self.providers)
        go_on()
        threads = 1 if held else usable_cores()  # the others belong to requests, if there can be any
        release = self._release(wanted, encoder, encoder_manifest, index_manifest, with_index, threads)
        # Either may have been replaced meanwhile.
        _check_same_space(wanted, encoder.space, release.ad_index.manifest.space)
        if release.live is None:
            index_manifest = release.ad_index.manifest
        loaded = partial(Loaded, release, wanted, encoder_manifest, index_manifest, golden)
        if with_both:
            return loaded(with_both[0].figures)
        go_on()
        figures = verify(wanted, release, encoder_manifest, golden, self.bounds)
        warm_up(release, self.max_batch_size)
        return loaded(figures)

    def _release(
        self,
        wanted: ReleaseSettings,
        encoder: Encoder,
        encoder_manifest: EncoderManifest,
        index_manifest: IndexManifest,
        with_index: Sequence[Loaded],
        threads: int,
    ) -> Release:
        """The encoder with an index that is shared, opened with its record, or loaded."""
        ad_index: AdIndex
        live: LiveParts | None = None
        if with_index:
            ad_index, live = with_index[0].release.ad_index, with_index[0].release.live
        elif wanted.record is not None:
            live = self.live.open(wanted.record, wanted.index, threads=threads)
            ad_index = live.index
        else:
            loaded = load_index(wanted.index, threads=threads)
            ad_index, index_manifest = loaded, loaded.manifest
        return Release(
            wanted.name,
            encoder,
            ad_index,
            encoder_manifest.model_version,
            index_manifest.index_version,
            writer=live.writer if live else None,
            live=live,
        )

    def _check_memory(
        self, wanted: ReleaseSettings, encoder: EncoderManifest | None, index: IndexManifest | None
    ) -> None:
        """Refuse before anything is loaded: the kernel would kill the process that serves, not the load."""
        needed = 0
        if encoder is not None:
            needed += ENCODER_FACTOR * encoder.files[MODEL_NAME].bytes + ENCODER_BYTES
        if index is not None:
            needed += needed_bytes(index)
        free = self.available()
        if needed and free is not None and needed + RESERVE_BYTES > free:
            raise MemoryShortError(
                f"release {wanted.name}: needs about {needed / 1e6:,.0f} MB of memory beside what is served and"
                f" {RESERVE_BYTES / 1e6:,.0f} MB of reserve, and {free / 1e6:,.0f} MB are free"
            )


def _encoder_of(loaded: Loaded) -> tuple[Encoder, EncoderManifest, Golden]:
    return loaded.release.encoder, loaded.encoder_manifest, loaded.golden


def _load_encoder(
    directory: Path, held: Sequence[Loaded], providers: ExecutionProviders
) -> tuple[Encoder, EncoderManifest, Golden]:
    relatives = [one.release.encoder for one in held]
    encoder, manifest = Encoder.load(directory, providers=providers, relatives=relatives)
    return encoder, manifest, load_golden(directory, manifest.space.dim)


def _check_same_space(wanted: ReleaseSettings, ours: EmbeddingSpace, theirs: EmbeddingSpace) -> None:
    if ours.space_id == theirs.space_id:
        return
    differing = [
        f"{name} {getattr(ours, name)!r} against {getattr(theirs, name)!r}"
        for name in type(ours).model_fields
        if getattr(ours, name) != getattr(theirs, name)
    ]
    raise ReleaseError(
        f"encoder {wanted.encoder} (space {ours.space_id}) cannot serve index {wanted.index} (space {theirs.space_id}):"
        f" {', '.join(differing)}"
    )
