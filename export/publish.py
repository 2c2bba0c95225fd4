"""The pipeline: checkpoint -> graph, tokenizer, parity, manifest -> published artifact."""

import tempfile
from pathlib import Path

from rich.markup import escape
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from artifacts.golden import save_golden
from artifacts.manifest import EncoderManifest, TextRules
from artifacts.store import check_replaceable, describe_files, publish, save_manifest, tool_versions
from export.onnx_graph import OPSET, load_checkpoint, write_graph
from export.optimize import finish_graph
from export.options import ExportOptions, export_fingerprint
from export.parity import measure, report_table
from export.source import ExportError, Source
from export.texts import read_texts
from service.encoder import MODEL_NAME, Encoder
from service.query_tokenizer import TOKENIZER_NAME
from terminal import console

_TOOLS = (
    "onnx",
    "onnxruntime",
    "optimum",
    "optimum-onnx",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


def export_encoder(source: Source, options: ExportOptions, target: Path) -> EncoderManifest:
    """Export a checkpoint and publish it as `target`; a failure leaves nothing behind.

    Raises:
        ExportError: the checkpoint cannot be exported, or the result differs from it too much.
    """
    check_replaceable(target)
    texts = read_texts(options.queries, options.corpus)
    console.print(f"Loading {escape(source.model)}")
    model, space = load_checkpoint(source)
    rules = _text_rules(model, options)
    with publish(target) as staging:
        _write_model(model, staging / MODEL_NAME, options)
        write_tokenizer(model, staging / TOKENIZER_NAME)
        parity, golden = measure(model, Encoder(staging, space, rules), texts, rules)
        console.print(report_table(parity, options.min_overlap))
        if parity.overlap_at_100 < options.min_overlap:
            raise ExportError(
                f"{source.model}: in {options.precision} the top 100 overlaps the original's by "
                f"{parity.overlap_at_100:.4f} where at least {options.min_overlap:.4f} is wanted; nothing was published"
            )
        save_golden(staging, golden)
        files = describe_files(staging)
        manifest = EncoderManifest(
            fingerprint=export_fingerprint(source, options),
            space=space,
            files=files,
            tools=tool_versions(_TOOLS),
            model_version=f"{source.name}-{options.precision}-{files[MODEL_NAME].sha256[:8]}",
            source=source.model,
            precision=options.precision,
            opset=OPSET,
            text=rules,
            parity=parity,
        )
        save_manifest(staging, manifest)
    return manifest


def write_tokenizer(model: SentenceTransformer, path: Path) -> None:
    """Write `tokenizer.json` without padding and truncation, which whoever encodes sets for its own case."""
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(path))


def _write_model(model: SentenceTransformer, path: Path, options: ExportOptions) -> None:
    with tempfile.TemporaryDirectory(prefix="hlm-export-") as scratch:
        traced = Path(scratch) / MODEL_NAME
        console.print("Tracing the graph")
        write_graph(model, traced)
        console.print(f"Optimising the graph for {options.precision}")
        kind = model[0].auto_model.config.model_type
        finish_graph(traced, path, kind, options.precision, for_tensorrt=options.for_tensorrt)


def _text_rules(model: SentenceTransformer, options: ExportOptions) -> TextRules:
    """Length limits as asked for, but never beyond what the checkpoint was made for."""
    longest = model.max_seq_length or options.max_ad_tokens
    if model.tokenizer.pad_token_id is None:
        raise ExportError("the checkpoint's tokenizer has no padding token, which batches need")
    return TextRules(
        max_query_tokens=min(options.max_query_tokens, longest),
        max_ad_tokens=min(options.max_ad_tokens, longest),
        pad_token_id=model.tokenizer.pad_token_id,
    )
