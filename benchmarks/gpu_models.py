"""The encoders that `benchmarks.gpu_check` times, in their true shapes with random weights: speed depends on no others.

Qwen3's kind runs in PyTorch (`benchmarks.gpu_torch`). BERT's kind is written as a graph, which needs the package onnx:
fused in fp16, as `hlm export --precision fp16` gives it for CUDA, or of standard nodes, for TensorRT and as reference.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FP16_BYTES = 2
POSITIONS = 512
MICROSOFT = "com.microsoft"
EPSILON = 1e-12


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides what an encoder costs."""

    name: str
    family: str
    """`bert` or `qwen3`."""
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int

    @property
    def layer_weights(self) -> int:
        """Of one layer's matrices; Qwen3's feed-forward part has a gate besides."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.key_value_heads)
        return attention + self.hidden * self.feed_forward * (3 if self.family == "qwen3" else 2)

    @property
    def weights(self) -> int:
        """Of all matrices, token embeddings included."""
        return self.vocabulary * self.hidden + self.layers * self.layer_weights

    def operations(self, batch: int, tokens: int) -> float:
        """Floating-point operations of a run: two a weight and token, and the products of attention."""
        attention = 4 * self.layers * self.heads * self.head_dim * tokens
        return batch * tokens * (2 * self.layers * self.layer_weights + attention)

    def bytes_read(self, batch: int, tokens: int) -> float:
        """What a run has to read of its fp16 weights at least: every layer once, and a row of embeddings a token."""
        return FP16_BYTES * (self.layers * self.layer_weights + batch * tokens * self.hidden)


def _minilm(layers: int) -> ModelShape:
    return ModelShape(f"minilm-{layers}-layers", "bert", layers, 384, 1536, 12, 12, 32, 30_522)


BERTS = (
    ModelShape("mpnet-base", "bert", 12, 768, 3072, 12, 12, 64, 30_527),
    *(_minilm(layers) for layers in (6, 3, 2)),
)
"""all-mpnet-base-v2 without its relative positions, and three students."""
MINILM = BERTS[1]
STUDENT = ModelShape("qwen3-190m-4-layers", "qwen3", 4, 1024, 768, 16, 8, 128, 151_669)
"""The shape that the paper's figures lead to."""
TEACHER = ModelShape("qwen3-embedding-4b", "qwen3", 36, 2560, 9728, 32, 8, 128, 151_669)
QWENS = (STUDENT, TEACHER, ModelShape("qwen3-embedding-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151_669))


def write_bert(shape: ModelShape, path: Path, seed: int = 0, *, fused: bool = True, fp16: bool = True) -> None:
    """Write the graph of an encoder of BERT's kind: mean pooling and normalisation in it, fp32 out.

    Args:
        shape: of the encoder.
        path: of the graph.
        seed: equal seeds give equal weights, but for what fp16 rounds away.
        fused: of onnxruntime's own nodes, as its optimiser leaves a graph for CUDA; else of standard ones.
        fp16: what the graph computes in.
    """
    from onnx import TensorProto, helper, save  # noqa: PLC0415 - whoever has it not can still time Qwen3's kind

    graph = _Graph(np.random.default_rng(seed), np.dtype(np.float16 if fp16 else np.float32))
    tokens = (_add_fused if fused else _add_plain)(graph, shape)
    _add_pooling(graph, tokens)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", shape.hidden])
    proto = helper.make_graph(graph.nodes, shape.name, inputs, [output], graph.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    save(helper.make_model(proto, opset_imports=opsets, ir_version=9), path)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Names of the weights of one layer."""

    qkv: str
    qkv_bias: str
    projection: str
    projection_bias: str
    wide: str
    wide_bias: str
    narrow: str
    narrow_bias: str


class _Graph:
    """Nodes and random weights as they are added; both kinds of graph ask for the same weights in the same order."""

    def __init__(self, rng: np.random.Generator, dtype: "np.dtype[Any]") -> None:
        self._rng = rng
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        """A node, and its first output; onnxruntime's own ones have a domain."""
        from onnx import helper  # noqa: PLC0415 - see write_bert

        self.nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

    def tables(self, shape: ModelShape) -> list[str]:
        """Embeddings of tokens and of positions."""
        return [self.weight(shape.vocabulary, shape.hidden), self.weight(POSITIONS, shape.hidden)]

    def layer(self, shape: ModelShape) -> _Layer:
        """Weights of the next layer."""
        hidden, wide = shape.hidden, shape.feed_forward
        sizes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, wide), (wide, hidden))
        return _Layer(*(self.weight(*one) for size in sizes for one in (size, size[1:])))

    def norm(self, hidden: int) -> list[str]:
        """Scale and shift of a layer norm."""
        return [self._store(np.ones(hidden, self.dtype)), self._store(np.zeros(hidden, self.dtype))]

    def weight(self, *size: int) -> str:
        """Random numbers that keep activations near their usual size."""
        return self._store((self._rng.standard_normal(size, np.float32) * 0.02).astype(self.dtype))

    def integers(self, *values: int) -> str:
        """A tensor of them."""
        return self._store(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A scalar."""
        return self._store(np.array(value, self.dtype))

    def element(self) -> int:
        """What the graph computes in, as ONNX numbers it."""
        from onnx import TensorProto  # noqa: PLC0415 - see write_bert

        return int(TensorProto.FLOAT16 if self.dtype == np.float16 else TensorProto.FLOAT)

    def _store(self, array: Any) -> str:
        from onnx import numpy_helper  # noqa: PLC0415 - see write_bert

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name


def _add_fused(graph: _Graph, shape: ModelShape) -> str:
    """Embedding and layers of onnxruntime's own nodes; the token vectors' name."""
    from onnx import TensorProto  # noqa: PLC0415 - see write_bert

    hidden = shape.hidden
    ids, mask = (
        graph.add("Cast", [name], f"{name}.int32", to=TensorProto.INT32) for name in ("input_ids", "attention_mask")
    )
    embedded = [ids, "", *graph.tables(shape), "", *graph.norm(hidden), mask]
    before = graph.add("EmbedLayerNormalization", embedded, "x0", "mask_index", domain=MICROSOFT, epsilon=EPSILON)

    def skip_norm(value: str, skip: str, bias: str, output: str) -> str:
        inputs = [value, skip, *graph.norm(hidden), bias]
        return graph.add("SkipLayerNormalization", inputs, output, domain=MICROSOFT, epsilon=EPSILON)

    for number in range(1, shape.layers + 1):
        weights, name = graph.layer(shape), f"x{number}"
        attention = [before, weights.qkv, weights.qkv_bias, "mask_index"]
        attended = graph.add("Attention", attention, f"{name}.attended", domain=MICROSOFT, num_heads=shape.heads)
        projected = graph.add("MatMul", [attended, weights.projection], f"{name}.projected")
        middle = skip_norm(projected, before, weights.projection_bias, f"{name}.middle")
        wide = graph.add("MatMul", [middle, weights.wide], f"{name}.wide")
        active = graph.add("BiasGelu", [wide, weights.wide_bias], f"{name}.gelu", domain=MICROSOFT)
        narrow = graph.add("MatMul", [active, weights.narrow], f"{name}.narrow")
        before = skip_norm(narrow, middle, weights.narrow_bias, name)
    return before


def _add_plain(graph: _Graph, shape: ModelShape) -> str:
    """The same of standard nodes."""
    ids, positions = graph.tables(shape)
    length = graph.add("Gather", [graph.add("Shape", ["input_ids"], "size"), graph.integers(1)], "length")
    end = graph.add("Squeeze", [length, graph.integers(0)], "end")
    zero, one = (graph.add("Squeeze", [graph.integers(value), graph.integers(0)], f"n{value}") for value in (0, 1))
    place = graph.add("Range", [zero, end, one], "places")
    found = [graph.add("Gather", [ids, "input_ids"], "words"), graph.add("Gather", [positions, place], "placed")]
    before = _norm(graph, graph.add("Add", found, "summed"), shape.hidden, "x0")
    bias = _mask_bias(graph)
    for number in range(1, shape.layers + 1):
        weights, name = graph.layer(shape), f"x{number}"
        attended = _attend(graph, shape, weights, before, bias, name)
        projected = _linear(graph, attended, weights.projection, weights.projection_bias, f"{name}.projected")
        residual = graph.add("Add", [projected, before], f"{name}.residual")
        middle = _norm(graph, residual, shape.hidden, f"{name}.middle")
        wide = _linear(graph, middle, weights.wide, weights.wide_bias, f"{name}.wide")
        narrow = _linear(graph, _gelu(graph, wide, name), weights.narrow, weights.narrow_bias, f"{name}.narrow")
        before = _norm(graph, graph.add("Add", [narrow, middle], f"{name}.sum"), shape.hidden, name)
    return before


def _linear(graph: _Graph, value: str, weight: str, bias: str, output: str) -> str:
    return graph.add("Add", [graph.add("MatMul", [value, weight], f"{output}.product"), bias], output)


def _norm(graph: _Graph, value: str, hidden: int, output: str) -> str:
    return graph.add("LayerNormalization", [value, *graph.norm(hidden)], output, epsilon=EPSILON)


def _gelu(graph: _Graph, value: str, name: str) -> str:
    scaled = graph.add("Div", [value, graph.number(2**0.5)], f"{name}.scaled")
    grown = graph.add("Add", [graph.add("Erf", [scaled], f"{name}.erf"), graph.number(1)], f"{name}.grown")
    halved = graph.add("Mul", [value, graph.number(0.5)], f"{name}.halved")
    return graph.add("Mul", [halved, grown], f"{name}.gelu")


def _mask_bias(graph: _Graph) -> str:
    """Zero where a token is, and far below zero where none is: (batch, 1, 1, length)."""
    mask = graph.add("Cast", ["attention_mask"], "mask.number", to=graph.element())
    wide = graph.add("Unsqueeze", [mask, graph.integers(1, 2)], "mask.wide")
    return graph.add("Mul", [graph.add("Sub", [graph.number(1), wide], "unmasked"), graph.number(-1e4)], "mask.bias")


def _attend(graph: _Graph, shape: ModelShape, weights: _Layer, value: str, bias: str, name: str) -> str:
    """Attention of all heads: (batch, length, hidden) in and out."""
    joined = _linear(graph, value, weights.qkv, weights.qkv_bias, f"{name}.qkv")
    sizes = graph.integers(*[shape.hidden] * 3)
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    graph.add("Split", [joined, sizes], *parts, axis=2)
    heads = graph.integers(0, 0, shape.heads, shape.head_dim)
    apart = [graph.add("Reshape", [part, heads], f"{part}.heads") for part in parts]
    query, key, values = (
        graph.add("Transpose", [part], f"{part}.turned", perm=[0, 2, 3, 1] if at == 1 else [0, 2, 1, 3])
        for at, part in enumerate(apart)
    )
    scores = graph.add("MatMul", [query, key], f"{name}.scores")
    scaled = graph.add("Mul", [scores, graph.number(shape.head_dim**-0.5)], f"{name}.scores.scaled")
    shares = graph.add("Softmax", [graph.add("Add", [scaled, bias], f"{name}.masked")], f"{name}.shares", axis=3)
    mixed = graph.add("MatMul", [shares, values], f"{name}.mixed")
    together = graph.add("Transpose", [mixed], f"{name}.together", perm=[0, 2, 1, 3])
    return graph.add("Reshape", [together, graph.integers(0, 0, shape.hidden)], f"{name}.attended")


def _add_pooling(graph: _Graph, tokens: str) -> None:
    from onnx import TensorProto  # noqa: PLC0415 - see write_bert

    graph.add("Cast", ["attention_mask"], "pool.mask", to=graph.element())
    graph.add("Unsqueeze", ["pool.mask", graph.integers(2)], "mask")
    graph.add("Mul", [tokens, "mask"], "masked")
    graph.add("ReduceSum", ["masked", graph.integers(1)], "sum", keepdims=0)
    graph.add("ReduceSum", ["mask", graph.integers(1)], "count", keepdims=0)
    graph.add("Div", ["sum", "count"], "mean")
    graph.add("ReduceL2", ["mean"], "norm", axes=[1], keepdims=1)
    graph.add("Div", ["mean", "norm"], "unit")
    graph.add("Cast", ["unit"], "embedding", to=TensorProto.FLOAT)
