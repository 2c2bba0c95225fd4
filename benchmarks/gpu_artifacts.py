"""An encoder artifact with random weights in MiniLM's shape, and an index of made-up ads, where there are no others."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel

from artifacts.golden import Golden, save_golden
from artifacts.manifest import EncoderManifest, ParityReport, TextRules
from artifacts.space import EmbeddingSpace
from artifacts.store import describe_files, file_sha256, publish, save_manifest, tool_versions
from benchmarks.clusters import clustered
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_models import MINILM, ModelShape, write_bert
from benchmarks.queries import read_queries
from service.encoder import MODEL_NAME, Encoder
from service.query_tokenizer import TOKENIZER_NAME

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
RULES = TextRules(max_query_tokens=64, max_ad_tokens=256, pad_token_id=0)
GOLDEN = 20
NO_PARITY = ParityReport(
    query_count=0,
    query_source="none: random weights",
    cosine_mean=1,
    cosine_p1=1,
    cosine_min=1,
    overlap_at_100=1,
    corpus_size=0,
    batch_cosine_min=1,
)


def write_encoder(target: Path, shape: ModelShape = MINILM) -> EmbeddingSpace:
    """Publish an fp16 encoder that knows the words of the shipped queries; its embedding space."""
    with publish(target) as staging:
        write_bert(shape, staging / MODEL_NAME)
        _tokenizer(shape.vocabulary).save(str(staging / TOKENIZER_NAME))
        space = EmbeddingSpace(
            teacher=f"random-{shape.name}",
            revision=f"sha256:{file_sha256(staging / MODEL_NAME)}",
            dim=shape.hidden,
            pooling="mean",
            normalized=True,
        )
        encoder, golden = Encoder(staging, space, RULES), read_queries(None)[:GOLDEN]
        embeddings = np.concatenate([encoder.encode([encoder.tokenize(query)]) for query in golden])
        save_golden(staging, Golden(golden, embeddings))
        manifest = EncoderManifest(
            fingerprint=space.revision,
            space=space,
            files=describe_files(staging),
            tools=tool_versions(("onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers")),
            model_version=space.teacher,
            source="random weights",
            precision="fp16",
            opset=17,
            text=RULES,
            parity=NO_PARITY,
        )
        save_manifest(staging, manifest)
    return space


def _tokenizer(vocabulary: int) -> Tokenizer:
    """Whole words, as they come in the shipped queries."""
    words = Counter(word for query in read_queries(None) for word in query.lower().split())
    known = [*SPECIAL, *(word for word, _ in words.most_common(vocabulary - len(SPECIAL)))]
    ids = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))  # noqa: S106 - of a text
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def write_index(target: Path, space: EmbeddingSpace, ads: int) -> None:
    """Build an index of made-up ads, whose embeddings are as hard to search as real ones.

    Raises:
        BenchmarkError: it cannot be built.
    """
    source = target.with_name(f"{target.name}.ads")
    source.mkdir()
    (source / "space.json").write_text(space.model_dump_json())
    vectors = np.lib.format.open_memmap(source / "embeddings.npy", "w+", np.float32, (ads, space.dim))
    clustered(vectors)
    vectors.flush()
    with (source / "feed.jsonl").open("w") as feed:
        feed.writelines(f'{{"ad_id": "ad-{at:08d}", "title": "Made-up offer number {at}"}}\n' for at in range(ads))
    command: list[str | Path] = [sys.executable, "hlm.py", "index", "build", "--out", target]
    command += ["--feed", source / "feed.jsonl", "--space", source / "space.json"]
    command += ["--embeddings", source / "embeddings.npy", "--target-recall", "0.95", "--k", "100"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise BenchmarkError(f"{target}: could not be built; the error is above")
