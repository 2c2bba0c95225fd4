"""Where the parts of an index artifact lie; `index.segment` knows the inside of a segment's directory."""

ADS = "ads"
"""Directory of the ads' columns; row i of each is ad i."""

ELIGIBILITY = "eligibility"
"""Directory of what decides by row who may see an ad; see `index.columns`."""

CAMPAIGNS = "campaigns.jsonl"
"""What campaigns say for their ads, one a line, as it was given; what is searched is in the columns."""

VECTORS = "vectors.npy"
"""The ads' embeddings, shape (ad count, dim), float32: what exact search, and the next build, need."""

SEGMENTS = "segments"
"""Directory with one directory a segment."""

QUERIES = "queries.npy"
"""Embeddings of the queries that recall was measured with, shape (n, dim), where it was."""
