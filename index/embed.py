"""Ad texts to vectors: over all cores, in batches of like length, a killed run continued where it stopped."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from artifacts.store import write_atomic
from index.ads import AdTable
from terminal import Advance, progress

MAX_BATCH_TOKENS = 512
"""Padded tokens a batch. One core embeds 355 ads a second of 29 tokens (MiniLM-L6 int8) in batches of 256 to 512 tokens
and 315 in ones of 64 or 1,024, 265 in ones of 4,096: small batches stay in the core's cache."""

SHARD_ADS = 512
"""Ads between two checkpoints, about two seconds of work for one core; enough to find neighbours of like length."""


class Embedder(Protocol):
    """What turns text into embeddings; `service.encoder.Encoder` is one. Safe to use from several threads at once."""

    def tokenize(self, query: str) -> list[int]:
        """Token ids of one query."""
        ...

    def tokenize_ads(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each ad text."""
        ...

    def encode(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings (n, dim) of n tokenised texts, run as one batch."""
        ...


def ad_texts(ads: AdTable, rows: NDArray[np.int64]) -> list[str]:
    """What the encoder reads of each ad: title and description."""
    titles, descriptions = ads.field("title", rows), ads.field("description", rows)
    return list(map(ad_text, titles, descriptions))


def ad_text(title: str, description: str | None) -> str:
    """What the encoder reads of one ad."""
    return f"{title} {description or ''}".strip()


def embed_ads(ads: AdTable, embedder: Embedder, vectors: NDArray[np.float32], shards: Path, *, threads: int) -> None:
    """Embed every ad, going on from the shards that an earlier run of the same inputs left.

    An ad's batch depends only on the feed, never on what an earlier run had finished, because with dynamic
    quantisation its embedding depends, in the last digits, on its batch: so a continued run ends in the same bytes.

    Args:
        ads: the ads.
        embedder: the encoder.
        vectors: where the embeddings go, shape (ad count, dim).
        shards: an existing directory for the checkpoints, which belongs to exactly these ads and this encoder.
        threads: how many batches run side by side.
    """
    bounds = [(start, min(start + SHARD_ADS, len(ads))) for start in range(0, len(ads), SHARD_ADS)]
    missing = []
    for start, end in bounds:
        shard = _load_shard(_shard_path(shards, start), (end - start, vectors.shape[1]))
        if shard is None:
            missing.append((start, end))
        else:
            vectors[start:end] = shard
    done = len(ads) - sum(end - start for start, end in missing)

    def embed_shard(start: int, end: int) -> None:
        texts = ad_texts(ads, np.arange(start, end))
        shard = encode_batches(embedder, embedder.tokenize_ads(texts), advance)
        _save_shard(_shard_path(shards, start), shard)
        vectors[start:end] = shard

    with progress("Embedding ads", len(ads), "ads", done=done) as advance:
        _run_all(embed_shard, missing, threads)


def embed_queries(queries: Sequence[str], embedder: Embedder) -> NDArray[np.float32]:
    """Embeddings (n, dim) of some queries."""
    with progress("Embedding queries", len(queries), "queries") as advance:
        return encode_batches(embedder, [embedder.tokenize(query) for query in queries], advance)


def encode_batches(embedder: Embedder, token_ids: Sequence[Sequence[int]], advance: Advance) -> NDArray[np.float32]:
    """Embeddings (n, dim) of tokenised texts, in their order, run in batches of like length."""
    batches = list(plan_batches([len(ids) for ids in token_ids]))
    embeddings = []
    for batch in batches:
        embeddings.append(embedder.encode([token_ids[position] for position in batch]))
        advance(len(batch))
    in_order = np.empty((len(token_ids), embeddings[0].shape[1]), dtype=np.float32)
    in_order[np.concatenate(batches)] = np.concatenate(embeddings)
    return in_order


def plan_batches(lengths: Sequence[int], max_batch_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield positions grouped by like length, each group at most `max_batch_tokens` when padded, or a single text."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        # Sorted by falling length, the first of a batch is what all of it is padded to.
        count = max(1, max_batch_tokens // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _run_all(task: Callable[[int, int], None], bounds: Sequence[tuple[int, int]], threads: int) -> None:
    """Run a task on each (start, end), side by side; an error, or an interrupt, drops those that have not begun."""
    with ThreadPoolExecutor(threads, thread_name_prefix="embed") as pool:
        try:
            for future in as_completed([pool.submit(task, start, end) for start, end in bounds]):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _shard_path(shards: Path, start: int) -> Path:
    return shards / f"{start:09d}.npy"


def _save_shard(path: Path, shard: NDArray[np.float32]) -> None:
    content = io.BytesIO()
    np.save(content, shard)
    write_atomic(path, content.getvalue())


def _load_shard(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """A checkpoint, or None where there is none that fits."""
    try:
        shard: NDArray[np.float32] = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return shard if shard.shape == shape and shard.dtype == np.float32 else None
