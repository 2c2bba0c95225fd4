"""Traced fp32 graph -> fused, and then fp16 or int8, exactly as it will run."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxruntime.transformers.optimizer import optimize_model
from optimum.onnxruntime.utils import ORTConfigManager

from artifacts.manifest import Precision
from export.onnx_graph import quiet

SLOWER_ON_CPU = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Fusions whose CPU kernels are slower than the nodes they replace: docs/experiments.md, "int8 variants"."""


SQUARES = ("LayerNormalization", "ReduceL2")
"""Kept in fp32: in fp16 the square of 256 is infinite, and sums of squares lose most. onnxruntime's fused kernels add
in fp32 anyway."""
ROOT_MEAN_SQUARE = ("ReduceMean", "Add", "Sqrt")
"""What follows a square in the norm of Qwen3 and its like, which no fusion takes as one; the Add is of an epsilon."""


def finish_graph(
    traced: Path, target: Path, model_type: str, precision: Precision, *, for_tensorrt: bool = False
) -> None:
    """Optimise a traced graph, bring it to a precision and write it. Inputs stay int64 and the output float32.

    Args:
        traced: fp32 graph as `export.onnx_graph` writes it.
        target: where the finished graph goes.
        model_type: `model_type` of the transformers configuration, which says which fusions fit.
        precision: what the weights become.
        for_tensorrt: leave the fusing to TensorRT, which knows none of onnxruntime's own nodes.
    """
    with quiet():
        if for_tensorrt or precision == "fp16":
            graph = OnnxModel(onnx.load(traced)) if for_tensorrt else fuse(traced, model_type)
            if precision == "fp16":
                halve(graph)
            onnx.save(graph.model, target)
            return
        graph = fuse(traced, model_type, slower_on_cpu=False)
        unfinished = target.with_suffix(".unfinished.onnx")
        if precision == "int8":
            quantize(graph.model, unfinished)
        else:
            onnx.save(graph.model, unfinished)
        finish_for_cpu(unfinished, target)
        unfinished.unlink()


def fuse(traced: Path, model_type: str, *, slower_on_cpu: bool = True) -> OnnxModel:
    """Merge what onnxruntime's transformer optimiser can merge in this family of models.

    Args:
        traced: fp32 graph.
        model_type: of the transformers configuration; an architecture without fusions gets the general optimisations.
        slower_on_cpu: also merge residuals with layer norms and biases with GELU, for which GPUs have fast kernels and
            CPUs slow ones.
    """
    try:
        family = ORTConfigManager.get_model_ort_type(model_type)
    except KeyError:
        return optimize_model(str(traced), opt_level=1, only_onnxruntime=True)
    options = FusionOptions(family)
    if not slower_on_cpu:
        options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_bias_gelu = False
        options.enable_embed_layer_norm = False  # it would hide the embedding tables from quantisation
    return optimize_model(str(traced), family, optimization_options=options, opt_level=1)


def halve(graph: OnnxModel) -> None:
    """Make a graph fp16, but for its inputs, its output, and whatever holds squares of hidden states."""
    blocked = [*DEFAULT_OP_BLOCK_LIST, *SQUARES]
    graph.convert_float_to_float16(keep_io_types=True, op_block_list=blocked, node_block_list=_mean_squares(graph))
    graph.topological_sort()  # the conversion puts its casts at the end


def _mean_squares(graph: OnnxModel) -> list[str]:
    """Names of the nodes from each square to the root of its mean."""
    consumers = graph.input_name_to_nodes()
    names = []
    for square in graph.get_nodes_by_op_type("Pow"):
        chain = [square]
        for kind in ROOT_MEAN_SQUARE:
            chain += [node for node in consumers.get(chain[-1].output[0], []) if node.op_type == kind][:1]
        if len(chain) > len(ROOT_MEAN_SQUARE):
            names += [node.name for node in chain]
    return names


def finish_for_cpu(unfinished: Path, target: Path, *, left_out: Sequence[str] = SLOWER_ON_CPU) -> None:
    """Apply what onnxruntime would do at load, less the fusions to leave out, and write the result.

    The service loads the graph as it stands: at load onnxruntime would make the fusions that are slower here again.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(
        str(unfinished), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(left_out)
    )


def quantize(graph: onnx.ModelProto, target: Path) -> None:
    """Write an int8 graph: weights per channel, activations by a scale that each run computes from its own batch.

    Embedding tables and all matmuls with weights are quantised; why nothing is left out: docs/experiments.md,
    "int8 variants".
    """
    # Type inference stops at onnxruntime's own nodes, so the quantiser is told what flows between them.
    quantize_dynamic(graph, target, per_channel=True, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
