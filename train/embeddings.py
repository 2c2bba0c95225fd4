"""Embeddings on disk: made once by the teacher, in shards that survive a kill, and mapped by whoever reads them."""

import gzip
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from artifacts.store import describe_files, fingerprint, publish, save_manifest, tool_versions, write_atomic
from terminal import console, progress
from train.encoders import Embeddings, embed_quietly, load_encoder
from train.recipe import Side
from train.runs import FORMAT, TOOLS, CheckpointManifest, EmbeddingsManifest, Run, load_finished, phase

EMBEDDINGS_NAME = "embeddings.npy"
SHARD_TEXTS = 4096
"""Texts between two saves: enough to find neighbours of like length, half a minute of a large model on two cores."""


def embed_with_teacher(
    run: Run, target: Path, texts: Sequence[str], side: Side, beside: Mapping[str, bytes] | None = None
) -> None:
    """`embed_with` the teacher."""
    embed_with(run.teacher, run, target, texts, side, beside)


def embed_with(
    checkpoint: Path,
    run: Run,
    target: Path,
    texts: Sequence[str],
    side: Side,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Embed texts and publish the result, unless `target` already holds it; a killed run goes on at its last shard.

    Args:
        checkpoint: what embeds, the result of a phase.
        run: that it belongs to.
        target: directory of the result.
        texts: row i of the result belongs to text i.
        side: how they are read.
        beside: contents of further files of the directory, by name; compressed where that ends in `.gz`.

    Raises:
        TrainError: there is no such checkpoint yet.
    """
    made = load_finished(checkpoint, CheckpointManifest, "teacher")
    key = embeddings_key(made, texts, side, beside)
    with phase(run, target, EmbeddingsManifest, key) as work:
        if work is None:
            return
        embeddings = embed_in_shards(load_encoder(str(checkpoint)), texts, side, work, f"Embedding {target.name}")
        with publish(target) as staging:
            np.save(staging / EMBEDDINGS_NAME, embeddings)
            for name, content in (beside or {}).items():
                (staging / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
            manifest = EmbeddingsManifest(
                fingerprint=key,
                space=made.space,
                files=describe_files(staging),
                tools=tool_versions(TOOLS),
                count=len(texts),
            )
            save_manifest(staging, manifest)
    console.print(f"{target}: {len(texts):,} embeddings", markup=False, soft_wrap=True)


def embeddings_key(
    made: CheckpointManifest, texts: Sequence[str], side: Side, beside: Mapping[str, bytes] | None = None
) -> str:
    """Fingerprint of what `embed_with` makes with the checkpoint of this manifest."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in (beside or {}).items()}
    return fingerprint({"format": FORMAT, "teacher": made.fingerprint, "side": side, "texts": texts, "beside": files})


def open_embeddings(directory: Path) -> NDArray[np.float16]:
    """Map the embeddings of a finished directory, shape (count, dim)."""
    mapped: NDArray[np.float16] = np.load(directory / EMBEDDINGS_NAME, mmap_mode="r")
    return mapped


def read_embeddings(directory: Path) -> Embeddings:
    """Read all of them, normalised again."""
    return normalized(open_embeddings(directory))


def embed_in_shards(
    encoder: SentenceTransformer, texts: Sequence[str], side: Side, work: Path, label: str
) -> NDArray[np.float16]:
    """Embeddings (n, dim) of texts, going on from the shards that an earlier run of the same inputs left in `work`."""
    shards = [(start, work / f"{start:09d}.npy") for start in range(0, len(texts), SHARD_TEXTS)]
    missing = [(start, path) for start, path in shards if not path.exists()]
    done = len(texts) - sum(len(texts[start : start + SHARD_TEXTS]) for start, _ in missing)
    with progress(label, len(texts), "texts", done=done) as advance:
        for start, path in missing:
            embeddings = embed_quietly(encoder, texts[start : start + SHARD_TEXTS], side, advance)
            content = io.BytesIO()
            np.save(content, embeddings.astype(np.float16))
            write_atomic(path, content.getvalue())
    return np.concatenate([np.load(path) for _, path in shards])


def normalized(embeddings: NDArray[np.float16]) -> Embeddings:
    """Embeddings (n, dim) of norm 1 again, after their storage in float16."""
    wide = embeddings.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
