"""The ads' columns."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.store import ArtifactError
from index.ads import FIELD_NAMES, AdTable, AdTableBuilder

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.none() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | texts
ads = st.fixed_dictionaries(
    {
        **dict.fromkeys(FIELD_NAMES, texts),
        "devices": st.none() | st.lists(st.sampled_from(["mobile", "desktop"])),
        "bid": st.none() | st.floats(0, 1e6),
        "attrs": st.none() | st.dictionaries(texts.filter(bool), values | st.lists(values, max_size=3), max_size=3),
    }
)


@given(st.lists(ads, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_after_save_and_load(given_ads, chance):
    builder = AdTableBuilder()
    for number, ad in enumerate(given_ads):
        builder.append(f"ad-{number}", ad)
    with TemporaryDirectory() as directory:
        builder.build().save(Path(directory))
        table = AdTable.load(Path(directory), len(given_ads))
        rows = chance.sample(range(len(given_ads)), k=len(given_ads))
        assert table.ad_ids == [f"ad-{number}" for number in range(len(given_ads))]
        for name in FIELD_NAMES:
            expected = [given_ads[row][name] for row in rows]
            if name != "bid":  # an empty text, list or object is as good as none
                expected = [value or None for value in expected]
            assert table.field(name, np.array(rows, dtype=np.int64)) == expected


def test_values_are_ready_for_json():
    builder = AdTableBuilder()
    builder.append(
        "ü", {"title": "Größe", "bid": 0.85, "devices": ["mobile"], "attrs": {"price": 3.5, "is_book": True}}
    )
    table = builder.build()
    row = np.array([0])
    fields = {name: table.field(name, row)[0] for name in FIELD_NAMES}
    assert json.loads(json.dumps(fields)) == fields
    assert fields["bid"] == 0.85
    assert fields["campaign_id"] is None


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    builder = AdTableBuilder()
    for number in range(3):
        builder.append(f"ad-{number}", {"title": f"title {number}"})
    builder.build().save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("title.blob.npy", None, "title.blob.npy: missing"),
        ("title.blob.npy", b"", "title.blob.npy: cannot be mapped"),
        ("title.offsets.npy", b"\x93NUMPY", "title.offsets.npy: cannot be mapped"),
        ("bid.npy", np.zeros(2), "bid: a column of 2 ads where 3 are expected"),
        ("bid.npy", np.zeros(3, dtype=np.float32), "bid.npy: is 1-dimensional float32 where 1-dimensional float64"),
        ("title.offsets.npy", np.zeros(4, dtype=np.int64), "title.offsets.npy: does not end at the 21 bytes"),
    ],
    ids=["missing", "empty", "header only", "too short", "other type", "blob and offsets of two columns"],
)
def test_a_damaged_column_is_named(saved: Path, file: str, content, message: str):
    (saved / file).unlink()
    if isinstance(content, bytes):
        (saved / file).write_bytes(content)
    elif content is not None:
        np.save(saved / file, content)
    with pytest.raises(ArtifactError, match=message):
        AdTable.load(saved, 3)
