"""Checkpoint -> one fp32 ONNX graph with pooling, dense head and normalisation inside."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import onnx
import torch
from optimum.exporters.onnx import export as export_onnx
from optimum.exporters.tasks import TasksManager
from pydantic import ValidationError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from artifacts.space import EmbeddingSpace
from export.source import ExportError, Source
from service.session import OUTPUT_NAME

OPSET = 17
"""The first with LayerNormalization as one node; all fusions of onnxruntime's transformer optimiser know it."""
SPACE_NAME = "embedding_space.json"
"""Written beside a student's weights by its training: the space of its teacher."""

_LOAD_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ImportError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
)
"""What sentence-transformers, transformers and torch raise on a checkpoint that is damaged or of an unknown kind."""
MAX_PARAMETERS = 2**29
"""Weights that one graph file of 2 GB holds in fp32."""
_AD_PROMPT_NAMES = ("document", "passage", "corpus")
"""In the order in which `SentenceTransformer.encode_document` looks for them."""


def load_checkpoint(source: Source) -> tuple[SentenceTransformer, EmbeddingSpace]:
    """Load a checkpoint as a SentenceTransformer whose last step normalises, and say which space it embeds into.

    A plain transformers checkpoint gets mean pooling; one with its own pooling or dense head keeps them.

    Raises:
        ExportError: it cannot be loaded, or does not fit one graph file.
    """
    try:
        with quiet():
            # Eager attention is what the fusions of onnxruntime's transformer optimiser were written for.
            options = {"attn_implementation": "eager"}
            directory = str(source.directory)
            model = SentenceTransformer(directory, device="cpu", local_files_only=True, model_kwargs=options).float()
    except _LOAD_ERRORS as error:
        raise ExportError(f"{source.model}: sentence-transformers cannot load it: {_first_line(error)}") from error
    if not isinstance(model[0], Transformer) or not model.tokenizer.is_fast:
        raise ExportError(f"{source.model}: expected a transformer for text with a fast tokenizer")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters >= MAX_PARAMETERS:
        raise ExportError(
            f"{source.model}: has {parameters:,} parameters where a graph file holds {MAX_PARAMETERS:,} in fp32 (2 GB)"
        )
    space = _embedding_space(source, model)
    if space.normalized and not isinstance(model[-1], Normalize):
        model.append(Normalize())
    return model.eval(), space


def write_graph(model: SentenceTransformer, path: Path) -> None:
    """Trace the model into an ONNX file.

    Inputs are `input_ids` and `attention_mask`, int64 of shape (batch, length), its only output the float32
    embeddings of shape (batch, dim).

    Raises:
        ExportError: optimum has no export for this kind of model.
    """
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model=model, task="feature-extraction", library_name="sentence_transformers", model_type="transformer"
    )
    try:
        with quiet():
            export_onnx(model, constructor(model[0].auto_model.config), path, opset=OPSET)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.errors.OnnxExporterError) as error:
        kind = model[0].auto_model.config.model_type
        raise ExportError(f"optimum cannot export a model of type '{kind}': {_first_line(error)}") from error
    graph_file = onnx.load(path)
    _keep_embedding(graph_file.graph, model.get_embedding_dimension())
    onnx.save(graph_file, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what the export libraries say to their own developers; what fails still raises."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _embedding_space(source: Source, model: SentenceTransformer) -> EmbeddingSpace:
    dim = model.get_embedding_dimension()
    path = source.directory / SPACE_NAME
    if path.is_file():
        try:
            space = EmbeddingSpace.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "document"
            raise ExportError(f"{path}: not a valid embedding space: {where}: {first['msg']}") from error
        if space.dim != dim:
            raise ExportError(f"{path}: says {space.dim} dimensions, but the checkpoint makes embeddings of {dim}")
        return space
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name, "")  # names that a checkpoint does not set are there, and empty
    return EmbeddingSpace(
        teacher=source.name,
        revision=source.revision,
        dim=dim,
        pooling=next((pooling_name(module) for module in model if isinstance(module, Pooling)), "none"),
        normalized=True,
        query_prompt=prompts.get("query") or default,
        ad_prompt=next((prompts[name] for name in _AD_PROMPT_NAMES if prompts.get(name)), default),
        matryoshka_dims=_matryoshka_dims(model, dim),
    )


def _matryoshka_dims(model: SentenceTransformer, dim: int) -> tuple[int, ...]:
    """What the checkpoint's `config.json` says that its embeddings can be cut to; there is no other place for it."""
    named = getattr(model[0].auto_model.config, "matryoshka_dimensions", None) or ()
    return tuple(sorted({length for length in named if 0 < length < dim}))


def pooling_name(pooling: Pooling) -> str:
    """How token vectors become one, as an embedding space says it."""
    mode = pooling.pooling_mode  # a tuple where several results are joined end to end
    return mode if isinstance(mode, str) else "+".join(mode)


def _keep_embedding(graph: onnx.GraphProto, dim: int) -> None:
    """Leave one output, called `embedding`, of shape (batch, dim)."""
    old_name = "sentence_embedding"
    for node in graph.node:
        node.output[:] = [OUTPUT_NAME if name == old_name else name for name in node.output]
        node.input[:] = [OUTPUT_NAME if name == old_name else name for name in node.input]
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, ["batch_size", dim]))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
