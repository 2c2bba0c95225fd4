"""The look at the data before any training: what leaks between splits, and what is double, missing or cut.

hlm train check RECIPE
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from client.trec import read_qrels, read_queries, read_texts
from export.source import resolve
from terminal import show_table
from train.data import RELEVANT_GRADE, Inventory, read_inventory, unlabelled_lines, word_key
from train.errors import TrainError
from train.recipe import Data, Recipe, Side
from train.runs import Run


@dataclass(frozen=True)
class Finding:
    """Something about the data; a leak makes every figure on the dev split worthless."""

    what: str
    count: int
    total: int
    example: str = ""
    is_leak: bool = False


def check_data(run: Run) -> list[Finding]:
    """Look at all files of a recipe.

    Raises:
        HlmError: one cannot be read.
    """
    recipe = run.recipe
    inventory = read_inventory(recipe.data)
    findings = [*_ads(recipe.data, inventory)]
    train, dev = _queries(recipe.data.train, "train"), _queries(recipe.data.dev, "dev")
    for split, texts in (("train", train), ("dev", dev)):
        findings.append(_duplicates(f"{split} queries that are like another", list(map(word_key, texts))))
    findings += _judgments(recipe.data.train, "train", inventory)
    findings += _judgments(recipe.data.dev, "dev", inventory)
    lines = [text for text, _ in unlabelled_lines(recipe.data.queries)]
    findings.append(_finding("unlabelled queries without text", [text for text in lines if not text], len(lines)))
    findings.append(_duplicates("unlabelled queries that are like another", list(map(word_key, filter(None, lines)))))
    unlabelled = {word_key(text): text for text in lines if text}
    findings.append(_leak("dev queries among the train split's", dev, {word_key(text) for text in train}))
    findings.append(_leak("dev queries among the unlabelled", dev, unlabelled.keys()))
    findings += _lengths(recipe, inventory, [*train, *dev, *unlabelled.values()])
    return findings


def show_findings(findings: Sequence[Finding]) -> None:
    """Print all of them.

    Raises:
        TrainError: there is a leak.
    """
    table = Table(title="Data check", title_justify="left")
    for column, justify in (("finding", "left"), ("count", "right"), ("of", "right"), ("example", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for finding in findings:
        style = "bold red" if finding.is_leak and finding.count else None
        table.add_row(finding.what, f"{finding.count:,}", f"{finding.total:,}", finding.example[:60], style=style)
    show_table(table)
    for finding in findings:
        if finding.is_leak and finding.count:
            raise TrainError(
                f"{finding.what}: {finding.count:,}, for example {finding.example!r}; expected none to be learnt from"
            )


def _queries(directories: Sequence[Path], split: str) -> list[str]:
    """Texts of all sets; not by id, which sets may have in common."""
    return [text for path in directories for text in read_queries(path / f"queries.{split}.tsv").values()]


def _ads(data: Data, inventory: Inventory) -> Iterator[Finding]:
    count = len(inventory.texts)
    for reason, left_out in inventory.left_out.most_common():
        yield Finding(f"lines of feeds left out: {reason}", left_out, count + inventory.left_out.total())
    yield _duplicates("ads that have the text of another", inventory.texts)
    if data.ad_expansions:
        expanded = read_texts(data.ad_expansions, "ad_id")
        unknown = [ad_id for ad_id in expanded if ad_id not in inventory.rows]
        yield _finding("expansions of an unknown ad", unknown, len(expanded))


def _judgments(directories: Sequence[Path], split: str, inventory: Inventory) -> Iterator[Finding]:
    lost: list[str] = []
    aimless: list[str] = []
    pairs = queries = 0
    for directory in directories:
        texts = read_queries(directory / f"queries.{split}.tsv")
        qrels = read_qrels(directory / f"qrels.{split}.tsv")
        judged = [(query_id, ad_id) for query_id, grades in qrels.items() for ad_id in grades]
        lost += [f"{query} {ad}" for query, ad in judged if query not in texts or ad not in inventory.rows]
        best = {query_id: max(grades.values()) for query_id, grades in qrels.items()}
        aimless += [text for query_id, text in texts.items() if best.get(query_id, 0) < RELEVANT_GRADE]
        pairs, queries = pairs + len(judged), queries + len(texts)
    yield _finding(f"{split} judgments of an unknown query or ad", lost, pairs)
    yield _finding(f"{split} queries without an ad of grade {RELEVANT_GRADE}", aimless, queries)


def _duplicates(what: str, texts: Sequence[str]) -> Finding:
    twice = [text for text, count in Counter(texts).items() for _ in range(count - 1)]
    return _finding(what, twice, len(texts))


def _leak(what: str, dev: Sequence[str], known: Set[str]) -> Finding:
    leaked = [text for text in dev if word_key(text) in known]
    return Finding(what, len(leaked), len(dev), leaked[0] if leaked else "", is_leak=True)


def _lengths(recipe: Recipe, inventory: Inventory, queries: Sequence[str]) -> Iterator[Finding]:
    tokenizer = _tokenizer(recipe.teacher.model)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for name, texts, side in (("queries", queries, recipe.query), ("ads", inventory.texts, recipe.ad)):
        yield _cut_texts(name, texts, side, tokenizer)


def _tokenizer(model: str) -> Tokenizer:
    try:
        loaded = AutoTokenizer.from_pretrained(resolve(model).directory)
    except (OSError, ValueError, KeyError) as error:
        raise TrainError(f"{model}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from error
    if not loaded.is_fast:
        raise TrainError(f"{model}: expected a checkpoint with a fast tokenizer, to count tokens with")
    return loaded.backend_tokenizer


def _cut_texts(name: str, texts: Sequence[str], side: Side, tokenizer: Tokenizer) -> Finding:
    lengths = np.array([len(one.ids) for one in tokenizer.encode_batch_fast([side.prompt + text for text in texts])])
    cut = np.flatnonzero(lengths > side.max_tokens)
    shortest, p50, p99 = np.percentile(lengths, [0, 50, 99])
    measures = f"shortest {shortest:.0f}, median {p50:.0f}, p99 {p99:.0f}, longest {lengths.max()}"
    what = f"{name} cut at {side.max_tokens} tokens ({measures})"
    return Finding(what, len(cut), len(texts), texts[int(lengths.argmax())] if len(cut) else "")


def _finding(what: str, cases: Sequence[str], total: int) -> Finding:
    return Finding(what, len(cases), total, cases[0] if cases else "")
