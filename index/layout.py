"""Where the parts of an index artifact lie; `index.segment` knows the inside of a segment's directory."""

ADS = "ads"
"""Directory of the ads' columns; row i of each is ad i."""

VECTORS = "vectors.npy"
"""The ads' embeddings, shape (ad count, dim), float32: what exact search, and the next build, need."""

SEGMENTS = "segments"
"""Directory with one directory a segment."""
