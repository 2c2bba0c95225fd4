"""What a query's text becomes before it is encoded."""

import json
import shutil
from pathlib import Path

import pytest

from artifacts.manifest import EncoderManifest
from artifacts.store import load_manifest
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


def test_several_spaces_are_one_where_the_tokenizer_sees_no_difference(small: SmallArtifacts):
    encoder, _ = Encoder.load(small.encoder)
    assert encoder.tokenize("Cordless   drill  set") == encoder.tokenize("cordless drill set")
    assert encoder.normalize("Cordless   drill  set") == encoder.normalize("cordless drill set")


def test_several_spaces_are_kept_where_the_tokenizer_makes_tokens_of_them(small: SmallArtifacts, tmp_path: Path):
    shutil.copytree(small.encoder, tmp_path / "encoder")
    path, manifest = tmp_path / "encoder" / "tokenizer.json", load_manifest(small.encoder, EncoderManifest)
    each = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": each}))
    encoder = Encoder(tmp_path / "encoder", manifest.space, manifest.text)
    assert encoder.tokenize("cordless  drill") != encoder.tokenize("cordless drill")
    assert encoder.normalize("cordless  drill") != encoder.normalize("cordless drill")
