"""Text to embeddings with an encoder artifact: normalise, tokenise, pad, run."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifacts.manifest import EncoderManifest, TextRules
from artifacts.space import EmbeddingSpace
from artifacts.store import ArtifactError, file_sha256, load_manifest, verify_files
from service.device_options import with_defaults
from service.execution_providers import CPU_ONLY, ExecutionProviders
from service.lanes import Lanes
from service.session import EncoderSession, pad
from service.shapes import ShapeCosts, shapes_of

MODEL_NAME = "model.onnx"
TOKENIZER_NAME = "tokenizer.json"
SPACES = re.compile(" {2,}")
SPACED = "a  b   18  ,  c"
"""Tells whether a tokenizer makes something of several spaces."""


class Encoder:
    """The encoder of one artifact; safe to use from several threads at once."""

    def __init__(
        self,
        directory: Path,
        space: EmbeddingSpace,
        text: TextRules,
        *,
        intra_op_threads: int = 1,
        providers: ExecutionProviders = CPU_ONLY,
        query_tokenizer: "QueryTokenizer | None" = None,
    ) -> None:
        """Open the files of an artifact without asking its manifest; `load` is the checked way in.

        Args:
            directory: of the artifact.
            space: what its manifest says.
            text: likewise.
            intra_op_threads: threads inside one run.
            providers: what the graph may run on.
            query_tokenizer: the artifact's, where it is in memory already.

        Raises:
            ArtifactError: the tokenizer cannot be read.
            SessionError: the graph cannot be loaded.
            ExecutionProviderError: what it is to run on cannot be had.
        """
        self.space = space
        self._directory = directory
        self._text = text
        self.query_tokenizer = query_tokenizer or QueryTokenizer.open(directory, text)
        self._query_tokenizer = self.query_tokenizer.tokenizer
        self._normalizer = self._query_tokenizer.normalizer
        model = directory / MODEL_NAME
        self._session: EncoderSession | Lanes
        self.shape_costs: ShapeCosts | None = None
        """What batches cost by their shape; None where they run as they come."""
        if providers.lanes is None:
            self._session = EncoderSession(model, intra_op_threads=intra_op_threads, providers=providers)
        else:
            policy, longest = providers.lanes, max(text.max_query_tokens, text.max_ad_tokens)  # ads that are changed
            paddings = (*policy.padding_buckets, text.max_query_tokens)
            shapes = shapes_of(policy.batch_buckets, paddings, longest)
            complete = with_defaults(providers, directory, shapes)
            open_session = partial(EncoderSession, model, intra_op_threads=intra_op_threads, providers=complete)
            self._session = Lanes(open_session, shapes, policy.batches_in_flight)
            self.shape_costs = self._session.costs
        self.execution_providers = self._session.execution_providers
        """What the graph runs on, first what most of it does."""

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        intra_op_threads: int = 1,
        providers: ExecutionProviders = CPU_ONLY,
        relatives: "Sequence[Encoder]" = (),
    ) -> tuple[Self, EncoderManifest]:
        """Open an encoder artifact after checking its files against its manifest.

        Args:
            directory: of the artifact.
            intra_op_threads: threads inside one run.
            providers: what the graph may run on, in the order in which they are wanted.
            relatives: encoders in memory. A tokenizer that one of them has is shared: reading it takes 20 ms in which
                no other thread gets to run Python, and all students of a teacher have the same.

        Raises:
            ArtifactError: a file is missing or damaged.
            SessionError: the graph cannot be loaded.
            ExecutionProviderError: what it is to run on cannot be had.
        """
        manifest = load_manifest(directory, EncoderManifest)
        verify_files(directory, manifest.files)
        wanted = (manifest.files[TOKENIZER_NAME].sha256, manifest.text)
        shared = (one.query_tokenizer for one in relatives if one.query_tokenizer.key == wanted)
        query_tokenizer = next(shared, None) or QueryTokenizer.open(directory, manifest.text)
        encoder = cls(
            directory,
            manifest.space,
            manifest.text,
            intra_op_threads=intra_op_threads,
            providers=providers,
            query_tokenizer=query_tokenizer,
        )
        return encoder, manifest

    @cached_property
    def _ad_tokenizer(self) -> Tokenizer:
        """Made when it is asked for: serving never tokenises ads."""
        return _open_tokenizer(self._directory / TOKENIZER_NAME, self._text.max_ad_tokens)

    def normalize(self, query: str) -> str:
        """The query as the tokenizer sees it, for example in lower case: queries alike in this have one embedding."""
        text = unicodedata.normalize(self._text.unicode_form, query)
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        return SPACES.sub(" ", text) if self.query_tokenizer.joins_spaces else text

    def tokenize(self, query: str) -> list[int]:
        """Token ids of one query, prompt and special tokens included, cut at `max_query_tokens`."""
        text = unicodedata.normalize(self._text.unicode_form, query)
        ids: list[int] = self._query_tokenizer.encode(self.space.query_prompt + text).ids
        return ids

    def tokenize_ads(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each ad text, prompt and special tokens included, cut at `max_ad_tokens`."""
        form, prompt = self._text.unicode_form, self.space.ad_prompt
        prepared = [prompt + unicodedata.normalize(form, text) for text in texts]
        return [encoding.ids for encoding in self._ad_tokenizer.encode_batch_fast(prepared)]

    def encode(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings (n, dim) of n tokenised texts, padded to the longest and run as one batch."""
        return self._session.run(*pad(token_ids, self._text.pad_token_id))


@dataclass(frozen=True, slots=True)
class QueryTokenizer:
    """A tokenizer set up for queries, and what makes it the one that another artifact needs too."""

    tokenizer: Tokenizer
    key: tuple[str, TextRules]
    """Hash of `tokenizer.json`, and the rules beside it."""
    joins_spaces: bool
    """Whether several spaces are to it as one."""

    @classmethod
    def open(cls, directory: Path, text: TextRules) -> Self:
        """Read an artifact's.

        Raises:
            ArtifactError: it is missing or cannot be read.
        """
        path = directory / TOKENIZER_NAME
        tokenizer = _open_tokenizer(path, text.max_query_tokens)
        joins_spaces = tokenizer.encode(SPACED).ids == tokenizer.encode(SPACES.sub(" ", SPACED)).ids
        return cls(tokenizer, (file_sha256(path), text), joins_spaces)


def _open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{path}: not a tokenizer file that can be read: {error}") from error
    tokenizer.encode_special_tokens = True  # "[SEP]" in a query is text, and has one embedding with "[sep]"
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer
