"""The errors of this room, one base and what it can say.

AdIndexError
├── FeedError          a feed, or what comes with it, cannot be used
├── EmbeddingError     precomputed embeddings do not fit the feed or the embedding space
├── QuerySampleError   the queries to measure recall with cannot be used
├── RecallTargetError  the recall that was asked for is not reached
├── BackendError       the package of an index's backend is not installed
├── ReportError        a build report cannot be written
├── BuildError         a build cannot start as it was asked for
├── RecordError        the durable record cannot be opened, read or written
│   └── RecordFullError    there is no room for it
├── UnknownAdError     there is no such ad to change
└── MergeBusyError     another process writes a snapshot of the same record

A damaged index is an `artifacts.store.ArtifactError`, as for every artifact.
"""

from artifacts.errors import HlmError


class AdIndexError(HlmError):
    """Base of this room's errors."""


class FeedError(AdIndexError):
    """A feed cannot be read, or has a bad line where none is allowed."""


class EmbeddingError(AdIndexError):
    """Precomputed embeddings do not fit the feed or the embedding space."""


class QuerySampleError(AdIndexError):
    """The queries to measure recall with cannot be used."""


class RecallTargetError(AdIndexError):
    """The recall that was asked for is not reached, or by no `ef_search` within reason."""


class BackendError(AdIndexError):
    """The package that an index's graphs need is not installed."""


class ReportError(AdIndexError):
    """A build report cannot be written."""


class BuildError(AdIndexError):
    """A build cannot start as it was asked for."""


class RecordError(AdIndexError):
    """The durable record cannot be opened, read or written."""


class RecordFullError(RecordError):
    """There is no room on the disk for what was to be recorded."""


class UnknownAdError(AdIndexError):
    """There is no such ad to change."""


class MergeBusyError(AdIndexError):
    """Another process writes a snapshot of the same record."""
