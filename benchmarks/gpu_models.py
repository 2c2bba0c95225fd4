"""The encoders that `benchmarks.gpu_check` times, in their true shapes with random weights: speed depends on no others.

BERT's kind is written as the fused fp16 graph that `hlm export --precision fp16` gives; Qwen3's kind runs in PyTorch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FP16_BYTES = 2
POSITIONS = 512
MICROSOFT = "com.microsoft"


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
STUDENT = ModelShape("qwen3-190m-4-layers", "qwen3", 4, 1024, 768, 16, 8, 128, 151_669)
"""The shape that the paper's figures lead to."""
TEACHER = ModelShape("qwen3-embedding-4b", "qwen3", 36, 2560, 9728, 32, 8, 128, 151_669)
QWENS = (STUDENT, ModelShape("qwen3-embedding-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151_669), TEACHER)


def write_bert(shape: ModelShape, path: Path, seed: int = 0) -> None:
    """Write the fused fp16 graph of an encoder of BERT's kind: mean pooling and normalisation in it, fp32 out."""
    graph = _Graph(np.random.default_rng(seed))
    hidden = shape.hidden
    graph.add("Cast", ["input_ids"], "ids32", to=TensorProto.INT32)
    graph.add("Cast", ["attention_mask"], "mask32", to=TensorProto.INT32)
    tables = [graph.weight(shape.vocabulary, hidden), graph.weight(POSITIONS, hidden)]
    embed = ["ids32", "", *tables, "", *graph.norm(hidden), "mask32"]
    graph.add("EmbedLayerNormalization", embed, "x0", "mask_index", domain=MICROSOFT)
    for layer in range(shape.layers):
        _add_layer(graph, shape, f"x{layer}", f"x{layer + 1}")
    _add_pooling(graph, f"x{shape.layers}")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", hidden])
    proto = helper.make_graph(graph.nodes, shape.name, inputs, [output], graph.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(proto, opset_imports=opsets, ir_version=9), path)


def _add_layer(graph: "_Graph", shape: ModelShape, before: str, after: str) -> None:
    hidden, wide, name = shape.hidden, shape.feed_forward, after
    qkv = [graph.weight(hidden, 3 * hidden), graph.weight(3 * hidden)]
    graph.add("Attention", [before, *qkv, "mask_index"], f"{name}.attended", domain=MICROSOFT, num_heads=shape.heads)
    graph.add("MatMul", [f"{name}.attended", graph.weight(hidden, hidden)], f"{name}.projected")
    graph.skip_norm(f"{name}.projected", before, hidden, f"{name}.middle")
    graph.add("MatMul", [f"{name}.middle", graph.weight(hidden, wide)], f"{name}.wide")
    graph.add("BiasGelu", [f"{name}.wide", graph.weight(wide)], f"{name}.gelu", domain=MICROSOFT)
    graph.add("MatMul", [f"{name}.gelu", graph.weight(wide, hidden)], f"{name}.narrow")
    graph.skip_norm(f"{name}.narrow", f"{name}.middle", hidden, after)


def _add_pooling(graph: "_Graph", tokens: str) -> None:
    graph.add("Cast", ["attention_mask"], "mask16", to=TensorProto.FLOAT16)
    graph.add("Unsqueeze", ["mask16", graph.constant([2])], "mask")
    graph.add("Mul", [tokens, "mask"], "masked")
    graph.add("ReduceSum", ["masked", graph.constant([1])], "sum", keepdims=0)
    graph.add("ReduceSum", ["mask", graph.constant([1])], "count", keepdims=0)
    graph.add("Div", ["sum", "count"], "mean")
    graph.add("ReduceL2", ["mean"], "norm", axes=[1], keepdims=1)
    graph.add("Div", ["mean", "norm"], "unit")
    graph.add("Cast", ["unit"], "embedding", to=TensorProto.FLOAT)


class _Graph:
    """Nodes and random weights as they are added."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> None:
        """A node; onnxruntime's own ones have a domain."""
        self.nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))

    def skip_norm(self, value: str, skip: str, hidden: int, output: str) -> None:
        """Residual, bias and layer norm as one node."""
        inputs = [value, skip, *self.norm(hidden), self.weight(hidden)]
        self.add("SkipLayerNormalization", inputs, output, domain=MICROSOFT, epsilon=1e-12)

    def norm(self, hidden: int) -> list[str]:
        """Scale and shift of a layer norm."""
        return [self._store(np.ones(hidden, np.float16)), self._store(np.zeros(hidden, np.float16))]

    def weight(self, *size: int) -> str:
        """Random fp16 numbers that keep activations near their usual size."""
        return self._store((self._rng.standard_normal(size, np.float32) * 0.02).astype(np.float16))

    def constant(self, values: list[int]) -> str:
        """A tensor of integers."""
        return self._store(np.array(values, np.int64))

    def _store(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name
