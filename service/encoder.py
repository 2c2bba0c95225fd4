"""Text to embeddings with an encoder artifact: normalise, tokenise, pad, run."""

import logging
import unicodedata
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifacts.manifest import EncoderManifest, TextRules
from artifacts.space import EmbeddingSpace
from artifacts.store import load_manifest, verify_files
from service.device_options import engines_built, with_defaults
from service.execution_providers import CPU_ONLY, ExecutionProviders
from service.lanes import Lanes
from service.query_tokenizer import TOKENIZER_NAME, QueryTokenizer, open_tokenizer
from service.session import EncoderSession, pad
from service.shapes import ShapeCosts, shapes_of

MODEL_NAME = "model.onnx"

logger = logging.getLogger(__name__)


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
        query_tokenizer: QueryTokenizer | None = None,
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
        self._text = text
        self.directory = directory
        self.query_tokenizer = query_tokenizer or QueryTokenizer.open(directory, text, space.query_prompt)
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
            with engines_built(complete):
                self._session = Lanes(open_session, shapes, policy.batches_in_flight)
            self.shape_costs = self._session.costs
        self.execution_providers = self._session.execution_providers
        """What the graph runs on, first what most of it does."""
        if (stand_in := providers.stand_in(self.execution_providers)) is not None:
            logger.warning("%s", stand_in)

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
        prompt = manifest.space.query_prompt
        wanted = (manifest.files[TOKENIZER_NAME].sha256, manifest.text, prompt)
        shared = (one.query_tokenizer for one in relatives if one.query_tokenizer.key == wanted)
        query_tokenizer = next(shared, None) or QueryTokenizer.open(directory, manifest.text, prompt)
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
        return open_tokenizer(self.directory / TOKENIZER_NAME, self._text.max_ad_tokens)

    def normalize(self, query: str) -> str:
        """The query as the tokenizer sees it, for example in lower case: queries alike in this have one embedding."""
        return self.query_tokenizer.normalize(query)

    def tokenize(self, query: str) -> list[int]:
        """Token ids of one query, prompt and special tokens included, cut at `max_query_tokens`."""
        return self.query_tokenizer.tokenize(query)

    def tokenize_ads(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each ad text, prompt and special tokens included, cut at `max_ad_tokens`."""
        form, prompt = self._text.unicode_form, self.space.ad_prompt
        prepared = [prompt + unicodedata.normalize(form, text) for text in texts]
        return [encoding.ids for encoding in self._ad_tokenizer.encode_batch_fast(prepared)]

    def encode(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings (n, dim) of n tokenised texts, padded to the longest and run as one batch."""
        return self._session.run(*pad(token_ids, self._text.pad_token_id))
