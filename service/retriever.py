"""The online path, query to ads, as one straight line: `retrieve` as far as the queue, `_answer` from the batch on.

parse → choose release → cached? → admit → tokenise → queue ──> batch: encode, search ──> answer
4xx                                503       504: dropped unencoded
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from index.filters import Wanted
from service.admission import Admission
from service.answer import StageTimes, Write, answer_of, new_request_id, to_json
from service.batcher import MicroBatcher, Ticket
from service.cache import EmbeddingCache, EmbeddingKey, ResultCache, ResultKey
from service.errors import ClientGone, DeadlineExceeded, Overloaded, PipelineError, RequestError
from service.exchange import Exchange, Watcher
from service.metrics import Metrics
from service.origin import OnDone, Origin
from service.pipeline import Found, Query, columns_of
from service.query_tokenizer import Prepared
from service.refusals import RecentRefusals
from service.release import Release
from service.schemas import RetrieveRequest
from service.settings import Settings
from service.validation import parse_body

Work = Ticket[Query, Found]

logger = logging.getLogger(__name__)


class Retriever:
    """Answers requests. Used on the event loop alone."""

    def __init__(
        self,
        settings: Settings,
        choose: Callable[[str, str | None], Release],
        batcher: MicroBatcher[Query, Found],
        embeddings: EmbeddingCache,
        metrics: Metrics,
    ) -> None:
        """Take what it works with; `choose` gives the release for a request id and for what was asked for."""
        self._choose = choose
        self._batcher = batcher
        self._embeddings = embeddings
        self._results = ResultCache(settings.cache.result_ttl_ms / 1e3)
        self._admission = Admission(settings.overload.steps)
        self._refusals = RecentRefusals(settings.limits.default_timeout_ms)
        self._smaller_effort = settings.overload.smaller_ef_search_share
        self._default_timeout_ms = settings.limits.default_timeout_ms
        self._metrics = metrics
        self.watchers: list[Watcher] = []

    def handle(self, body: bytes, origin: Origin, on_done: OnDone, write: Write = to_json) -> Work | None:
        """Answer one `POST /retrieve`.

        Args:
            body: as it came.
            origin: where it came from.
            on_done: gets the answer as it was written, or why there is none.
            write: makes the body of an answer, or what another process makes it from.

        Returns:
            The ticket by which its caller can give it up; None where `on_done` has been called already.
        """
        exchange = Exchange(origin, on_done, write)
        try:
            return self.retrieve(parse_body(RetrieveRequest, body), exchange)
        except RequestError as error:
            self._refuse(exchange, error.alone())
        except Exception as error:  # a fault of ours: the client learns no internals, the log gets all
            logger.exception("a request failed")
            self._refuse(exchange, PipelineError(type(error).__name__))
        return None

    def shed(self, body: bytes, caller: Hashable) -> Overloaded | None:
        """The refusal of its caller's last request, if it holds for this one too; unparsed, but counted."""
        refusal = self._refusals.for_body(body, caller, perf_counter())
        if refusal is not None:
            self._metrics.refused(refusal.problem)
        return refusal

    def retrieve(self, request: RetrieveRequest, exchange: Exchange) -> Work | None:
        """Queue a query, or answer it at once where its result is cached.

        Raises:
            RequestError: it is refused before anything was spent on it.
        """
        exchange.request = request
        exchange.request_id = request.request_id or new_request_id()
        deadline = exchange.origin.arrived + (request.timeout_ms or self._default_timeout_ms) / 1e3
        if deadline <= perf_counter():
            raise DeadlineExceeded("the time budget was spent before the body was in")
        exchange.release = release = self._choose(exchange.request_id, exchange.origin.release)
        prepared = exchange.origin.prepared
        if prepared is None or prepared.tokenizer != release.encoder.query_tokenizer.tag:
            prepared = None  # by no other process, or with the tokenizer of another release
        exchange.text = release.encoder.normalize(request.query) if prepared is None else prepared.text
        exchange.wanted = wanted = request.wanted(exchange.request_id)
        if self._answer_from_results(exchange, wanted, release):
            return None
        key = EmbeddingKey(release.model_version, exchange.text)
        embedding = self._cached_embedding(key)
        exchange.cached = embedding is not None
        self._admit(exchange, deadline)
        if exchange.steps and not release.ad_index.narrows(request.top_k, self._smaller_effort):
            # Nothing would be spared, and it would be said of a full answer.
            exchange.steps = tuple(step for step in exchange.steps if step != "smaller_ef_search")
        if "smaller_ef_search" in exchange.steps:
            exchange.wanted = wanted = replace(wanted, effort=self._smaller_effort)
        query = Query(
            release=release,
            embedding_key=key,
            shared=self._embeddings.enabled,
            token_ids=[] if exchange.cached else _token_ids(request, prepared, release),
            embedding=embedding,
            wanted=wanted,
            fields=request.fields,
            caller=exchange.origin.caller,
        )
        exchange.tokenized_at = perf_counter()
        return self._batcher.submit(query, deadline=deadline, on_done=partial(self._finish, exchange))

    def retire(self, release: Release) -> None:
        """Drop cached results, and keep none of a release that is served no more, so that it can be freed."""
        self._results.retire(release)

    def _answer_from_results(self, exchange: Exchange, wanted: Wanted, release: Release) -> bool:
        if not self._results.enabled:
            return False
        hits = self._results.get(ResultKey(release, exchange.text, wanted.top_k, wanted.filters), wanted)
        self._metrics.looked_up("result", hit=hits is not None)
        if hits is None:
            return False
        assert exchange.request is not None
        exchange.cached = True
        exchange.tokenized_at = now = perf_counter()
        self._finish(exchange, Found(hits, columns_of(hits, exchange.request.fields), None, now, 0.0, 0.0))
        return True

    def _cached_embedding(self, key: EmbeddingKey) -> NDArray[np.float32] | None:
        if not self._embeddings.enabled:
            return None
        embedding = self._embeddings.get(key)
        self._metrics.looked_up("embedding", hit=embedding is not None)
        return embedding

    def _admit(self, exchange: Exchange, deadline: float) -> None:
        """Refuse what would come too late, and decide how much is spent on what is admitted."""
        caller, now = exchange.origin.caller, perf_counter()
        forecast = self._batcher.forecast(caller, cached=exchange.cached)
        exchange.predicted_s = forecast.predicted_s
        try:
            exchange.steps = self._admission.admit(forecast, deadline - now, cached=exchange.cached)
        except Overloaded as refusal:
            uncached_only = refusal.predicted_wait_s <= deadline - now and self._embeddings.enabled
            if not uncached_only and not self._results.enabled:  # a cached result is an answer whatever the load
                self._refusals.remember(caller, now, deadline - now, refusal.for_others())
            raise

    def _finish(self, exchange: Exchange, outcome: Found | RequestError) -> None:
        if exchange.predicted_s is not None and not isinstance(outcome, PipelineError | ClientGone):
            self._admission.margin.learn(exchange.predicted_s, perf_counter() - exchange.tokenized_at)
        if isinstance(outcome, RequestError):
            self._refuse(exchange, outcome)
            return
        try:
            answer, times = self._answer(exchange, outcome)
        except Exception as error:  # likewise a fault of ours
            logger.exception("an answer could not be written")
            self._refuse(exchange, PipelineError(type(error).__name__))
            return
        exchange.on_done(answer)
        self._learn(exchange, outcome, times)

    def _answer(self, exchange: Exchange, found: Found) -> tuple[bytes, StageTimes]:
        release = exchange.release
        assert release is not None  # nothing is found before it is known
        now = perf_counter()
        arrived = exchange.origin.arrived
        times = StageTimes(
            tokenize=exchange.tokenized_at - arrived,
            queue=max(0.0, found.started_at - exchange.tokenized_at),
            encode=found.encode_s,
            search=found.search_s,
            total=now - arrived,
        )
        answer = answer_of(
            release,
            found.hits,
            found.columns,
            times,
            request_id=exchange.request_id,
            cached=exchange.cached,
            steps=exchange.steps,
        )
        return exchange.write(answer), times

    def _learn(self, exchange: Exchange, found: Found, times: StageTimes) -> None:
        """What is to be kept of an answer, once it is on its way."""
        wanted, release, steps = exchange.wanted, exchange.release, exchange.steps
        assert wanted is not None and release is not None  # noqa: PT018 - likewise
        if self._results.enabled and not steps and found.embedding is not None:
            self._results.put(ResultKey(release, exchange.text, wanted.top_k, wanted.filters), found.hits)
        self._metrics.answered(times, complete=found.hits.short is None, steps=steps)
        for watcher in self.watchers:
            watcher.answered(exchange, found, times)

    def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        error.request_id = exchange.request_id or None
        self._metrics.refused(error.problem)
        for watcher in self.watchers:
            watcher.refused(exchange, error)
        exchange.on_done(error)


def _token_ids(request: RetrieveRequest, prepared: Prepared | None, release: Release) -> list[int]:
    return release.encoder.tokenize(request.query) if prepared is None else prepared.token_ids
