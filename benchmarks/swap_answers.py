"""Whether an answer was made by one release: its versions and its ads belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from artifacts.manifest import EncoderManifest, IndexManifest
from artifacts.store import load_manifest


@dataclass(frozen=True, slots=True)
class KnownRelease:
    """A release that was asked for, and what its answers have to say."""

    name: str
    encoder: Path
    index: Path
    model_version: str
    index_version: str
    ad_prefix: str
    """What the ids of all ads of its index begin with, and those of no other index."""


def known_release(name: str, encoder: Path, index: Path) -> KnownRelease:
    """The release of two artifacts; an index is named after the prefix of its ads.

    Raises:
        ArtifactError: an artifact is missing.
    """
    model_version = load_manifest(encoder, EncoderManifest).model_version
    index_version = load_manifest(index, IndexManifest).index_version
    return KnownRelease(name, encoder, index, model_version, index_version, f"{index.name}-")


def is_mixed(body: bytes, known: Mapping[str, KnownRelease]) -> bool:
    """Whether an answer 200 names a release that nobody asked for, or has anything of another release in it."""
    answer = orjson.loads(body)
    release = known.get(answer["release"])
    if release is None:
        return True
    versions = (answer["model_version"], answer["index_version"])
    if versions != (release.model_version, release.index_version):
        return True
    return not all(ad["ad_id"].startswith(release.ad_prefix) for ad in answer["ads"])


def count_mixed(statuses: Sequence[int], bodies: Sequence[bytes], known: Mapping[str, KnownRelease]) -> int:
    """How many of the answers 200 are mixed."""
    return sum(is_mixed(body, known) for status, body in zip(statuses, bodies, strict=True) if status == 200)
