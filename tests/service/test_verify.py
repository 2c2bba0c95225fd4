"""What verification finds wrong with artifacts that are whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from artifacts.golden import load_golden
from index.filters import Wanted
from service.errors import ReleaseError
from service.loading import Loaded, ReleaseLoader
from service.settings import SwapSettings
from tests.service.small_artifacts import SmallArtifacts, live_opener, pair, rewrite_manifest


def load(encoder: Path, index: Path, **bounds: float) -> Loaded:
    return ReleaseLoader(SwapSettings(**bounds), 4, live_opener()).load(pair("r", encoder, index), (), lambda: None)


def test_the_figures_are_those_of_an_independent_count(small: SmallArtifacts):
    loaded = load(small.other_encoder, small.index)
    golden, encoder = load_golden(small.other_encoder, 32), loaded.release.encoder
    served = np.concatenate([encoder.encode([encoder.tokenize(query)]) for query in golden.queries])
    vectors = np.load(small.index / "vectors.npy")
    exact = [set(np.argsort(-vectors @ embedding)[:100].tolist()) for embedding in golden.embeddings]

    def found(embeddings: np.ndarray) -> list[set[int]]:
        hits = loaded.release.ad_index.search(embeddings, [Wanted(100)] * len(embeddings))
        return [set(one.rows.tolist()) for one in hits]

    def shared(left: list[set[int]], right: list[set[int]]) -> float:
        return sum(len(a & b) for a, b in zip(left, right, strict=True)) / (100 * len(left))

    assert loaded.figures.cosine_min == pytest.approx(float((served * golden.embeddings).sum(axis=1).min()), abs=1e-6)
    assert loaded.figures.overlap == pytest.approx(shared(found(served), found(golden.embeddings)))
    assert loaded.figures.ann_recall == pytest.approx(shared(found(golden.embeddings), exact))


def test_a_graph_that_finds_less_than_its_manifest_says_is_refused(small: SmallArtifacts, tmp_path: Path):
    """As after a change of hnswlib, or with an `ef_search` that was edited."""
    index = shutil.copytree(small.index, tmp_path / "index")
    manifest = json.loads((index / "manifest.json").read_text())
    segments = [segment | {"ef_search": 1} for segment in manifest["segments"]]
    rewrite_manifest(index, segments=segments, recall=manifest["recall"] | {"k": 1, "ann_recall": 1.0})
    with pytest.raises(ReleaseError, match=r"finds 0\.\d+ of what exact search finds .* where at least 0\.950"):
        load(small.encoder, index)
    assert load(small.encoder, index, min_ann_recall=0.1).figures.ann_recall < 0.95


def test_a_bound_of_ones_own_takes_the_place_of_the_derived_one(small: SmallArtifacts):
    with pytest.raises(ReleaseError, match=r"where at least 1\.000 is expected \(swap\.min_golden_overlap\)"):
        load(small.other_encoder, small.index, min_golden_overlap=1.0)
    with pytest.raises(ReleaseError, match=r"swap\.min_ann_recall"):
        load(small.encoder, small.index, min_ann_recall=1.0)


def test_embeddings_that_are_not_finite_are_refused(small: SmallArtifacts, monkeypatch: pytest.MonkeyPatch):
    from service.encoder import Encoder

    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, ids: encode(self, ids) * (np.nan if len(ids) == 4 else 1))
    with pytest.raises(ReleaseError, match="a batch of 4 gives embeddings that are not finite"):
        load(small.encoder, small.index)
    monkeypatch.setattr(Encoder, "encode", lambda self, ids: encode(self, ids) * np.nan)
    with pytest.raises(ReleaseError, match="has cosine nan to the original's"):
        load(small.encoder, small.index)
