"""Query text to token ids, as the encoder of one artifact wants them; loads nothing but the tokenizer."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tokenizers import Tokenizer

from artifacts.manifest import TextRules
from artifacts.store import ArtifactError, file_sha256, fingerprint

TOKENIZER_NAME = "tokenizer.json"
_SPACES = re.compile(" {2,}")
_SPACED = "a  b   18  ,  c"
"""Tells whether a tokenizer makes something of several spaces."""


class Prepared(NamedTuple):
    """A query, tokenised ahead of the choice of its release."""

    tokenizer: str
    """The `tag` of the tokenizer."""
    text: str
    """The query as the tokenizer sees it."""
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class QueryTokenizer:
    """A tokenizer set up for queries; safe to use from several threads at once."""

    tokenizer: Tokenizer
    key: tuple[str, TextRules, str]
    """Hash of `tokenizer.json`, the rules beside it, and the prompt: what makes it the one that an artifact needs."""
    tag: str
    """The same as one word, for other processes."""
    joins_spaces: bool
    """Whether several spaces are to it as one."""

    @classmethod
    def open(cls, directory: Path, text: TextRules, prompt: str) -> Self:
        """Read an artifact's.

        Raises:
            ArtifactError: it is missing or cannot be read.
        """
        path = directory / TOKENIZER_NAME
        tokenizer = open_tokenizer(path, text.max_query_tokens)
        joins_spaces = tokenizer.encode(_SPACED).ids == tokenizer.encode(_SPACES.sub(" ", _SPACED)).ids
        key = (file_sha256(path), text, prompt)
        return cls(tokenizer, key, fingerprint({"key": key}), joins_spaces)

    def normalize(self, query: str) -> str:
        """The query as the tokenizer sees it, for example in lower case: queries alike in this have one embedding."""
        text = unicodedata.normalize(self.key[1].unicode_form, query)
        if self.tokenizer.normalizer is not None:
            text = self.tokenizer.normalizer.normalize_str(text)
        return _SPACES.sub(" ", text) if self.joins_spaces else text

    def tokenize(self, query: str) -> list[int]:
        """Token ids of one query, prompt and special tokens included, cut at `max_query_tokens`."""
        _, rules, prompt = self.key
        ids: list[int] = self.tokenizer.encode(prompt + unicodedata.normalize(rules.unicode_form, query)).ids
        return ids

    def prepare(self, query: str) -> Prepared:
        """Do both."""
        return Prepared(self.tag, self.normalize(query), self.tokenize(query))


def open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """A tokenizer that cuts at `max_tokens`, does not pad, and takes special tokens in a text for text.

    Raises:
        ArtifactError: it is missing or cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{path}: not a tokenizer file that can be read: {error}") from error
    tokenizer.encode_special_tokens = True  # "[SEP]" in a query is text, and has one embedding with "[sep]"
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer
