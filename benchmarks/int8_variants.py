"""int8 variants of one encoder side by side: size, speed, and what is left of its exact search results.

Every variant is built from the same traced graph. Quality: both the PyTorch original and the variant embed the queries,
and both search the ad embeddings of the original exactly. Speed: processor time of one thread, so that a neighbour on
the same core does not count, for tokenised queries in the order of the file, at batch 1 and batch 8; the variants take
turns, and the median over the turns is shown. Pin it to one core:

    taskset -c 1 python -m benchmarks.int8_variants ../shared/data/homedepot

The last line is the table as JSON. Method and conclusions: docs/experiments.md, "int8 variants".
"""

import csv
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from artifacts.manifest import TextRules
from artifacts.space import EmbeddingSpace
from export.onnx_graph import load_checkpoint, quiet, write_graph
from export.optimize import SLOWER_ON_CPU, finish_for_cpu, fuse, quantize
from export.parity import overlap
from export.publish import write_tokenizer
from export.source import resolve
from index.exact import exact_top_k
from service.encoder import MODEL_NAME, Encoder
from service.query_tokenizer import TOKENIZER_NAME
from terminal import progress

DEFAULT = "int8, attention fused (the default)"
K = 100
TIMED_QUERIES = 320
BATCH_SIZES = (1, 8)
MIXED_BATCH_SIZE = 32

# Parts of a BERT layer, by the names that tracing gives their matmuls; the first that fits counts.
PARTS = QKV, ATTENTION_OUT, FFN_UP, FFN_DOWN = "/self/", "attention/output/dense", "intermediate/dense", "/output/dense"

Embeddings = NDArray[np.float32]


@dataclass
class Result:
    """One line of the table."""

    variant: str
    megabytes: float
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    overlap_at_100: float
    recall_at_100: float
    """Of the grade-2 ads, queries without one left out."""
    batch_cosine_min: float
    """A query alone against the same query in a batch of 32."""
    us_per_query: dict[int, float] = field(default_factory=dict)
    """Median processor time in microseconds, by batch size."""


@dataclass(frozen=True)
class Labelled:
    """A labelled set, tokenised and embedded by the original."""

    queries: list[str]
    grade_2: list[set[int]]
    """Positions of the right ads, by query."""
    ads: Embeddings
    expected: Embeddings
    expected_top: NDArray[np.int64]


def main(
    data: Annotated[Path, typer.Argument(help="Folder with ads.jsonl.gz, queries.dev.tsv and qrels.dev.tsv.")],
    model: Annotated[str, typer.Option(help="Hub id, directory or 'demo': a BERT of any size.")] = "demo",
    ads: Annotated[Path | None, typer.Option(help="Ad embeddings by the original as .npy; computed if absent.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each variant in the timing.")] = 9,
) -> None:
    """Build, compare and time every variant."""
    torch.set_num_threads(1)
    original, space = load_checkpoint(resolve(model))
    rules = TextRules(max_query_tokens=64, max_ad_tokens=256, pad_token_id=original.tokenizer.pad_token_id)
    labelled = read_labelled(data, original, ads)
    with tempfile.TemporaryDirectory() as scratch:
        encoders = build(original, space, rules, Path(scratch))
        results = []
        with progress("Comparing", len(encoders), "variants") as advance:
            for name, encoder, size in encoders:
                results.append(compare(name, encoder, labelled, size))
                advance(1)
        token_ids = [encoders[0][1].tokenize(query) for query in labelled.queries[:TIMED_QUERIES]]
        measure_speed([encoder for _, encoder, _ in encoders], token_ids, results, repeats)
    report(results, token_ids)


def graphs(traced: Path) -> dict[str, Callable[[Path], None]]:
    """What writes each variant's graph, by the variant's name."""
    default = fuse(traced, "bert", slower_on_cpu=False)
    optimized = _extended(traced)
    weights = {tensor.name for tensor in optimized.graph.initializer}
    nodes = [node.name for node in optimized.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    last = max(int(name.split("layer.")[1].split("/")[0]) for name in nodes)

    def part(*names: str) -> list[str]:
        return [node for node in nodes if _part(node) in names]

    def layer(number: int) -> list[str]:
        return [node for node in nodes if f"layer.{number}/" in node]

    def int8(graph: onnx.ModelProto = optimized, **options: Any) -> Callable[[Path], None]:
        return lambda path: _int8(graph, path, **options)

    def blocks(size: int, *names: str) -> onnx.ModelProto:
        return _blockwise(_extended(traced), size, part(*names))

    variants: dict[str, Callable[[Path], None]] = {
        "fp32, as traced": lambda path: onnx.save(onnx.load(traced), path),
        "fp32, transformer fusions": lambda path: onnx.save(_fused(traced), path),
        "fp32": lambda path: onnx.save(optimized, path),
        "int8, per tensor": int8(per_channel=False),
        DEFAULT: lambda path: quantize(default.model, path),
        "int8, per channel": int8(),
        "… as traced": int8(onnx.load(traced)),
        "… basic optimisations only": int8(optimize_model(str(traced), opt_level=1, only_onnxruntime=True).model),
        "… transformer fusions": int8(_fused(traced)),
        "… transformer fusions but SkipLayerNormalization": int8(_fused(traced, skip_layer_norm=False)),
        "… reduce_range": int8(reduce_range=True),
        "… uint8 weights": int8(weight_type=QuantType.QUInt8),
        "… embedding tables fp32": int8(op_types_to_quantize=["MatMul"]),
        "… first layer fp32": int8(nodes_to_exclude=layer(0)),
        "… last layer fp32": int8(nodes_to_exclude=layer(last)),
        "… Q, K, V fp32": int8(nodes_to_exclude=part(QKV)),
        "… attention output fp32": int8(nodes_to_exclude=part(ATTENTION_OUT)),
        "… FFN up fp32": int8(nodes_to_exclude=part(FFN_UP)),
        "… FFN down fp32": int8(nodes_to_exclude=part(FFN_DOWN)),
    }
    for number in range(last + 1):
        chosen = [node for node in part(FFN_DOWN) if node in layer(number)]
        variants[f"… FFN down of layer {number} fp32"] = int8(nodes_to_exclude=chosen)
    return variants | {
        "… FFN down in blocks of 128": int8(blocks(128, FFN_DOWN)),
        "… FFN up and down in blocks of 128": int8(blocks(128, FFN_UP, FFN_DOWN)),
        "all matmuls in blocks of 128": int8(blocks(128, *PARTS)),
        "all matmuls in blocks of 32": int8(blocks(32, *PARTS)),
    }


def build(
    original: SentenceTransformer, space: EmbeddingSpace, rules: TextRules, scratch: Path
) -> list[tuple[str, Encoder, float]]:
    """Name, encoder and graph size in MB of every variant."""
    traced = scratch / "traced.onnx"
    write_graph(original, traced)
    encoders = []
    with quiet():
        variants = graphs(traced)
        with progress("Building", len(variants), "variants") as advance:
            for number, (name, write) in enumerate(variants.items()):
                directory = scratch / str(number)
                directory.mkdir()
                unfinished = scratch / "unfinished.onnx"
                write(unfinished)
                left_out = (
                    SLOWER_ON_CPU if name.endswith("(the default)") else ()
                )  # the others as onnxruntime loads them
                finish_for_cpu(unfinished, directory / MODEL_NAME, left_out=left_out)
                write_tokenizer(original, directory / TOKENIZER_NAME)
                encoders.append((name, Encoder(directory, space, rules), (directory / MODEL_NAME).stat().st_size / 1e6))
                advance(1)
    return encoders


def compare(name: str, encoder: Encoder, labelled: Labelled, megabytes: float) -> Result:
    """Everything but speed."""
    token_ids = [encoder.tokenize(query) for query in labelled.queries]
    alone = np.concatenate([encoder.encode([ids]) for ids in token_ids])
    mixed = np.concatenate(
        [encoder.encode(token_ids[i : i + MIXED_BATCH_SIZE]) for i in range(0, len(token_ids), MIXED_BATCH_SIZE)]
    )
    cosines = (alone * labelled.expected).sum(axis=1)
    top, _ = exact_top_k(alone, labelled.ads, K)
    return Result(
        variant=name,
        megabytes=megabytes,
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        overlap_at_100=overlap(labelled.expected_top, top),
        recall_at_100=_recall(top, labelled.grade_2),
        batch_cosine_min=float((alone * mixed).sum(axis=1).min()),
    )


def measure_speed(encoders: list[Encoder], token_ids: list[list[int]], results: list[Result], repeats: int) -> None:
    """Fill in `us_per_query`; the encoders take turns, so that a noisy neighbour disturbs all of them alike."""
    samples: dict[tuple[int, int], list[float]] = {}
    with progress("Timing", repeats * len(encoders), "runs") as advance:
        for _ in range(repeats):
            for number, encoder in enumerate(encoders):
                for batch_size in BATCH_SIZES:
                    encoder.encode(token_ids[:batch_size])
                    started = time.thread_time()
                    for start in range(0, len(token_ids), batch_size):
                        encoder.encode(token_ids[start : start + batch_size])
                    elapsed = time.thread_time() - started
                    samples.setdefault((number, batch_size), []).append(elapsed / len(token_ids) * 1e6)
                advance(1)
    for (number, batch_size), values in samples.items():
        results[number].us_per_query[batch_size] = float(np.median(values))


def read_labelled(data: Path, original: SentenceTransformer, ad_embeddings: Path | None) -> Labelled:
    """Read a labelled set and have the original embed it, the ads as `title description`."""
    with gzip.open(data / "ads.jsonl.gz", "rt", encoding="utf-8") as file:
        feed = [json.loads(line) for line in file]
    queries = {row["query_id"]: row["text"] for row in _rows(data / "queries.dev.tsv")}
    position = {ad["ad_id"]: number for number, ad in enumerate(feed)}
    right: dict[str, set[int]] = {query_id: set() for query_id in queries}
    for row in _rows(data / "qrels.dev.tsv"):
        if row["grade"] == "2":
            right[row["query_id"]].add(position[row["ad_id"]])
    if ad_embeddings:
        ads = np.load(ad_embeddings)
    else:
        texts = [f"{ad['title']} {ad['description']}".strip() for ad in feed]
        ads = original.encode(texts, batch_size=64, show_progress_bar=True)
    texts = list(queries.values())
    expected = original.encode(texts, show_progress_bar=False)
    return Labelled(texts, list(right.values()), ads, expected, exact_top_k(expected, ads, K)[0])


def report(results: list[Result], token_ids: list[list[int]]) -> None:
    """Print the table, and as the last line the same as JSON."""
    table = Table(title=f"onnxruntime {ort.__version__}, {np.mean([len(ids) for ids in token_ids]):.1f} tokens a query")
    headers = (
        "MB",
        "us, batch 1",
        "us, batch 8",
        "cos mean",
        "cos p1",
        "cos min",
        "overlap@100",
        "recall@100",
        "batch cos min",
    )
    table.add_column("variant")
    for header in headers:
        table.add_column(header, justify="right")
    for result in results:
        speeds = [f"{result.us_per_query[batch_size]:.0f}" for batch_size in BATCH_SIZES]
        quality = (result.cosine_mean, result.cosine_p1, result.cosine_min, result.overlap_at_100)
        rest = (result.recall_at_100, result.batch_cosine_min)
        numbers = [f"{value:.4f}" for value in (*quality, *rest)]
        table.add_row(result.variant, f"{result.megabytes:.1f}", *speeds, *numbers)
    Console(width=200).print(table)
    print(json.dumps([asdict(result) for result in results]))


def _extended(traced: Path) -> onnx.ModelProto:
    """What onnxruntime itself makes of a graph, without the fusions of its transformer optimiser."""
    return optimize_model(str(traced), opt_level=2, only_onnxruntime=True).model


def _int8(graph: onnx.ModelProto, path: Path, *, per_channel: bool = True, **options: Any) -> None:
    extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(graph, path, per_channel=per_channel, extra_options=extra, **options)


def _fused(traced: Path, *, skip_layer_norm: bool = True) -> onnx.ModelProto:
    """The fusions of onnxruntime's transformer optimiser, as optimum's O2 applies them."""
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # it would hide the embedding tables from quantisation
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = skip_layer_norm
    return optimize_model(str(traced), "bert", optimization_options=options, opt_level=1).model


def _blockwise(model: onnx.ModelProto, block_size: int, chosen: list[str]) -> onnx.ModelProto:
    """Matmuls with 8-bit weights by block (com.microsoft.MatMulNBits) and int8 activations scaled by row and block.

    Weights (in, out) become uint8 (out, blocks, block_size) with zero point 128; accuracy_level 4 asks for int8
    arithmetic.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in chosen:
            continue
        weight = weights.pop(node.input[1])
        matrix = numpy_helper.to_array(weight)
        blocks = matrix.T.reshape(matrix.shape[1], -1, block_size)
        scales = np.abs(blocks).max(axis=2) / 127
        quantized = (np.rint(blocks / scales[..., None]) + 128).astype(np.uint8)
        node.input[1:] = [f"{weight.name}_blocks", f"{weight.name}_scales"]
        for name, array in zip(node.input[1:], (quantized, scales.astype(np.float32)), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        model.graph.initializer.remove(weight)
        node.op_type, node.domain = "MatMulNBits", "com.microsoft"
        sizes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 8, "block_size": block_size, "accuracy_level": 4}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in sizes.items())
    return model


def _part(node: str) -> str:
    return next(part for part in PARTS if part in node)


def _recall(top: NDArray[np.int64], grade_2: list[set[int]]) -> float:
    shares = [
        len(right.intersection(found)) / len(right) for found, right in zip(top.tolist(), grade_2, strict=True) if right
    ]
    return float(np.mean(shares))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


if __name__ == "__main__":
    typer.run(main)
