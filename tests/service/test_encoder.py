"""What a query's text becomes before it is encoded."""

import pytest

from service.encoder import Encoder
from tests.service.small_artifacts import SmallArtifacts


@pytest.mark.parametrize("special", ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"])
def test_a_special_token_in_a_query_is_text(small: SmallArtifacts, special: str):
    """Its embedding is kept by its normalised text, and would be another's; and no caller may end a query early."""
    encoder, _ = Encoder.load(small.encoder)
    shouted, plain = f"drill {special} set", f"drill {special.lower()} set"
    assert encoder.normalize(shouted) == encoder.normalize(plain)
    assert encoder.tokenize(shouted) == encoder.tokenize(plain)
    assert encoder.tokenize_ads([shouted]) == encoder.tokenize_ads([plain])
