"""How close an exported encoder is to the PyTorch original, on real queries and titles."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sentence_transformers import SentenceTransformer

from artifacts.golden import Golden
from artifacts.manifest import ParityReport, TextRules
from export.onnx_graph import quiet
from export.source import ExportError
from export.texts import TOP_K, ParityTexts
from index.exact import exact_top_k
from service.encoder import Encoder
from terminal import progress

_BATCH_SIZE = 32
_GOLDEN_COUNT = 32
"""A release is checked with them before it is served: a tenth of a second on one core."""

Embeddings = NDArray[np.float32]


def measure(
    model: SentenceTransformer, encoder: Encoder, texts: ParityTexts, rules: TextRules
) -> tuple[ParityReport, Golden]:
    """Compare an exported encoder with its original.

    The original embeds the ads; both embed the queries and search the same ads. Some of the queries, spread evenly,
    come back with the original's embeddings: so the report's figures bound what the artifact may make of them.

    Raises:
        ExportError: the two tokenise a query differently.
    """
    space = encoder.space
    token_ids = [encoder.tokenize(query) for query in texts.queries]
    originals = _prepare(texts.queries, space.query_prompt, rules)
    _check_tokens(model, originals, token_ids, rules.max_query_tokens)
    expected = _embed_with_original(model, originals, rules.max_query_tokens, "Parity: queries, PyTorch")
    ads = _embed_with_original(
        model, _prepare(texts.ads, space.ad_prompt, rules), rules.max_ad_tokens, "Parity: ads, PyTorch"
    )
    alone = _encode(encoder, token_ids, 1, "Parity: queries, artifact")
    batched = _encode(encoder, token_ids, _BATCH_SIZE, "Parity: queries, artifact in batches")
    cosines = _cosines(expected, alone)
    report = ParityReport(
        query_count=len(texts.queries),
        query_source=texts.source,
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        overlap_at_100=overlap(exact_top_k(expected, ads, TOP_K)[0], exact_top_k(alone, ads, TOP_K)[0]),
        corpus_size=len(texts.ads),
        batch_cosine_min=float(_cosines(alone, batched).min()),
    )
    return report, _golden(texts.queries, expected)


def overlap(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Mean share of each row of `expected` (n, k) that the same row of `found` (n, k) has too."""
    shared = sum(len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(expected, found, strict=True))
    return shared / expected.size


def report_table(report: ParityReport, least_overlap: float) -> Table:
    """The report as it is shown on screen."""
    table = Table(title="Parity with the PyTorch original", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("over")
    queries = f"{report.query_count:,} queries ({report.query_source})"
    table.add_row("cosine, mean", f"{report.cosine_mean:.5f}", queries)
    table.add_row("cosine, 1st percentile", f"{report.cosine_p1:.5f}", queries)
    table.add_row("cosine, least", f"{report.cosine_min:.5f}", queries)
    table.add_row("cosine alone to in a batch, least", f"{report.batch_cosine_min:.5f}", f"batches of {_BATCH_SIZE}")
    color = "green" if report.overlap_at_100 >= least_overlap else "bold red"
    table.add_row(
        f"overlap of exact top {TOP_K}",
        f"[{color}]{report.overlap_at_100:.4f}[/] (bound {least_overlap:.4f})",
        f"{report.corpus_size:,} ads",
    )
    return table


def _golden(queries: list[str], expected: Embeddings) -> Golden:
    count = min(_GOLDEN_COUNT, len(queries))
    chosen = np.linspace(0, len(queries) - 1, count).round().astype(np.int64)
    embeddings = expected[chosen] / np.linalg.norm(expected[chosen], axis=1, keepdims=True)
    return Golden([queries[position] for position in chosen], embeddings.astype(np.float32, copy=False))


def _prepare(texts: Sequence[str], prompt: str, rules: TextRules) -> list[str]:
    return [prompt + unicodedata.normalize(rules.unicode_form, text) for text in texts]


def _check_tokens(model: SentenceTransformer, texts: list[str], token_ids: list[list[int]], max_tokens: int) -> None:
    with quiet():
        expected = model.tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    for text, ours, theirs in zip(texts, token_ids, expected, strict=True):
        if ours != theirs:
            raise ExportError(f"tokenizer.json makes {ours} of {text!r} where transformers' tokenizer makes {theirs}")


def _embed_with_original(model: SentenceTransformer, texts: list[str], max_tokens: int, label: str) -> Embeddings:
    """Embeddings (n, dim) by PyTorch, in the order of `texts`; runs batches of similar length."""
    model.max_seq_length = max_tokens
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    embeddings = np.empty((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    with progress(label, len(texts), "texts") as advance:
        for start in range(0, len(order), _BATCH_SIZE):
            chosen = order[start : start + _BATCH_SIZE]
            # An empty prompt keeps sentence-transformers from putting the checkpoint's default one in front.
            embeddings[chosen] = model.encode([texts[i] for i in chosen], prompt="", show_progress_bar=False)
            advance(len(chosen))
    return embeddings


def _encode(encoder: Encoder, token_ids: list[list[int]], batch_size: int, label: str) -> Embeddings:
    parts = []
    with progress(label, len(token_ids), "texts") as advance:
        for start in range(0, len(token_ids), batch_size):
            batch = token_ids[start : start + batch_size]
            parts.append(encoder.encode(batch))
            advance(len(batch))
    return np.concatenate(parts)


def _cosines(a: Embeddings, b: Embeddings) -> Embeddings:
    products: Embeddings = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return products
