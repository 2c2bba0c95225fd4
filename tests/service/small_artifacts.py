"""Real artifacts that take seconds to make: encoders with few random weights, and indexes of a few thousand ads."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from artifacts.manifest import MANIFEST_NAME, EncoderManifest
from artifacts.store import describe_files, load_manifest
from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, ExportOptions
from export.publish import export_encoder
from export.source import resolve
from index.build import BuildInputs, BuildOptions, EncoderInput, build_index
from service.encoder import Encoder
from service.live_parts import LiveOpener
from service.metrics import Metrics
from service.settings import ReleaseSettings, Settings
from tests.export.checkpoints import save_transformer
from tests.index.support import sample_feed

ADS = 2_100
"""Just enough for a graph."""


@dataclass(frozen=True)
class SmallArtifacts:
    """Two encoders and two indexes of one embedding space, and an encoder of another."""

    encoder: Path
    other_encoder: Path
    foreign_encoder: Path
    index: Path
    other_index: Path


def make_artifacts(directory: Path) -> SmallArtifacts:
    checkpoint, foreign = save_transformer(directory / "tiny"), save_transformer(directory / "foreign", seed=1)
    made = SmallArtifacts(
        *(directory / name for name in ("encoder", "other-encoder", "foreign-encoder", "index", "other-index"))
    )
    export(checkpoint, made.encoder)
    export(checkpoint, made.other_encoder, precision="int8")
    export(foreign, made.foreign_encoder)
    build(made.encoder, sample_feed(directory / "feed.jsonl", ADS), made.index)
    build(made.encoder, sample_feed(directory / "other.jsonl", ADS + 10), made.other_index)
    return made


def export(checkpoint: Path, out: Path, **options: object) -> None:
    defaults = {"precision": "fp32", "max_query_tokens": 64, "max_ad_tokens": 256, "min_overlap": 0.9}
    texts = {"queries": DEFAULT_QUERIES, "corpus": DEFAULT_CORPUS}
    export_encoder(resolve(str(checkpoint)), ExportOptions(**(defaults | texts | options)), out)


def build(encoder: Path, feed: Path, out: Path) -> None:
    manifest = load_manifest(encoder, EncoderManifest)
    given = EncoderInput(manifest, lambda: Encoder.load(encoder)[0])
    build_index(BuildInputs(feed, manifest.space, given), out, BuildOptions(target_recall=0.9))


def rewrite_manifest(directory: Path, **changes: object) -> None:
    """Change entries of a manifest, and let it list the files as they are now."""
    path = directory / MANIFEST_NAME
    files = {name: entry.model_dump() for name, entry in describe_files(directory).items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files} | changes))


def pair(name: str, encoder: Path, index: Path) -> ReleaseSettings:
    return ReleaseSettings(name=name, encoder=encoder, index=index)


def settings_of(stable: ReleaseSettings, **sections: object) -> Settings:
    return Settings.model_validate({"release": stable.model_dump(), **sections})


def live_opener(is_busy: Callable[[], bool] = lambda: False) -> LiveOpener:
    metrics = Metrics()
    return LiveOpener("normal", metrics.ads, metrics.live, is_busy)
