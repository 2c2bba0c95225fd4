"""Ad texts to vectors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.ads import AdTable, AdTableBuilder
from index.embed import SHARD_ADS, ad_texts, embed_ads, plan_batches
from tests.index.support import DIM, WordEmbedder

AD_COUNT = SHARD_ADS * 3 + 7


@pytest.fixture(scope="module")
def ads() -> AdTable:
    builder = AdTableBuilder()
    for number in range(AD_COUNT):
        builder.append(str(number), {"title": f"drill {number}", "description": "very " * (number % 50) + "good"})
    return builder.build()


def embed(ads: AdTable, shards: Path, embedder: WordEmbedder, threads: int = 2) -> np.ndarray:
    vectors = np.zeros((len(ads), DIM), dtype=np.float32)
    shards.mkdir(exist_ok=True)
    embed_ads(ads, embedder, vectors, shards, threads=threads)
    return vectors


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_batches_hold_each_text_once_and_stay_within_their_padded_tokens(lengths: list[int], budget: int):
    batches = list(plan_batches(lengths, budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= budget


def test_the_encoder_reads_title_and_description():
    builder = AdTableBuilder()
    builder.append("a", {"title": "Drill", "description": "18 V"})
    builder.append("b", {"title": "Saw"})
    assert ad_texts(builder.build(), np.array([1, 0])) == ["Saw", "Drill 18 V"]


def test_each_ad_gets_its_own_embedding(ads: AdTable, tmp_path: Path):
    embedder = WordEmbedder()
    vectors = embed(ads, tmp_path / "shards", embedder)
    assert embedder.encoded == len(ads)
    alone = np.concatenate(
        [embedder.encode([ids]) for ids in embedder.tokenize_ads(ad_texts(ads, np.arange(len(ads))))]
    )
    assert vectors == pytest.approx(alone, abs=1e-2)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_bytes_do_not_depend_on_the_threads(ads: AdTable, tmp_path: Path, threads: int):
    expected = embed(ads, tmp_path / "expected", WordEmbedder(), threads=2)
    assert (embed(ads, tmp_path / "shards", WordEmbedder(), threads) == expected).all()


def test_a_run_goes_on_from_whole_shards_only(ads: AdTable, tmp_path: Path):
    """One shard is gone, one is cut off, one is of another shape: only these are embedded again."""
    expected = embed(ads, tmp_path, WordEmbedder())
    shards = sorted(tmp_path.glob("*.npy"))
    assert len(shards) == 4
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    np.save(shards[3], np.zeros((1, DIM), dtype=np.float32))
    embedder = WordEmbedder()
    assert (embed(ads, tmp_path, embedder) == expected).all()
    assert embedder.encoded == 2 * SHARD_ADS + 7


def test_an_error_in_one_batch_ends_the_run_with_that_error(ads: AdTable, tmp_path: Path):
    class Failing(WordEmbedder):
        def encode(self, token_ids):
            if self.encoded > SHARD_ADS:
                raise MemoryError("no memory for this batch")
            return super().encode(token_ids)

    with pytest.raises(MemoryError, match="this batch"):
        embed(ads, tmp_path, Failing(), threads=1)
    assert [path.name for path in tmp_path.glob("*.npy")] == ["000000000.npy"]
