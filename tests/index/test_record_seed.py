"""A record begins with the ads of an index, says of them what their feed said, and belongs to that index alone."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts.store import ArtifactError
from index.ad_document import write_ad
from index.build import BuildInputs, BuildOptions, build_index
from index.changes import AdPatch, AdState, Change, Delete, PatchAd, State, Upsert
from index.errors import RecordError
from index.feed import FeedAd
from index.filters import Wanted
from index.layout import VECTORS
from index.live import LiveIndex
from index.merge import merge
from index.record import Record
from index.record_reader import RecordReader
from index.record_seed import open_record
from index.snapshots import Snapshots
from index.writer import AdWriter
from tests.index.support import SPACE, WordEmbedder, inputs, unit_vectors, write_feed

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = BuildOptions(k=10, target_recall=0.5)
ADS: list[dict[str, Any]] = [
    {"ad_id": "plain", "title": "Drill"},
    {
        "ad_id": "all/ü",
        "title": "Saw",
        "description": "Sharp",
        "brand": "Acme",
        "campaign_id": "c1",
        "category": "Tools > Saws",
        "market": ["us", "de"],
        "language": "en",
        "devices": ["mobile"],
        "bid": 0.25,
        "landing_url": "https://example.com/saw",
        "attrs": {"colour": ["red", {"deep": None}]},
        "stock": 7,
        "starts_at": "2026-12-01T09:00:00+09:00",
        "ends_at": "2027-01-01T00:00:00Z",
        "hours": [
            {"days": ["mon", "sun"], "from_hour": 0, "to_hour": 24},
            {"days": ["tue"], "from_hour": 8, "to_hour": 9},
        ],
        "negative_keywords": ["Free!", "[second hand]"],
    },
    {"ad_id": "resting", "title": "Hammer", "status": "Disapproved", "market": "us"},
]
CAMPAIGNS = [{"campaign_id": "c1", "budget": "exhausted"}, {"campaign_id": "c2", "pass_through_rate": 0.5}]


def build(tmp_path: Path, ads: list[dict[str, Any]] = ADS) -> Path:
    vectors = unit_vectors(len(ads)).tolist()
    feed = write_feed(
        tmp_path / "shop.jsonl", [ad | {"embedding": vector} for ad, vector in zip(ads, vectors, strict=True)]
    )
    campaigns = write_feed(tmp_path / "campaigns.jsonl", CAMPAIGNS)
    out = tmp_path / "index"
    build_index(BuildInputs(feed, SPACE, None, "feed", campaigns=campaigns), out, OPTIONS)
    return out


def test_it_begins_with_what_the_feed_said(tmp_path: Path):
    index = build(tmp_path)
    open_record(tmp_path / "place" / "record.db", index).close()
    reader = RecordReader(tmp_path / "place" / "record.db")
    found = list(reader.ads())
    assert [state.ad_id for state in found] == [ad["ad_id"] for ad in ADS]
    expected = [FeedAd.model_validate(ad) for ad in ADS]
    expected[2].status = "paused"  # why an ad is not active is not in an index
    assert [write_ad(state.ad) for state in found if state.ad] == list(map(write_ad, expected))
    whole = found[1].ad
    assert whole is not None
    assert (whole.schedule, whole.segment_keys) == (expected[1].schedule, expected[1].segment_keys)
    np.testing.assert_allclose([state.embedding for state in found], unit_vectors(len(ADS)), atol=1e-6)
    campaigns = [state.campaign for state in reader.campaigns()]
    assert [(one.campaign_id, one.budget, one.pass_through_rate) for one in campaigns] == [
        ("c1", "exhausted", 1.0),
        ("c2", "available", 0.5),
    ]
    assert (reader.sequence, list(reader.changes_since(0))) == (0, [])


def test_to_write_the_feed_again_changes_nothing(tmp_path: Path):
    index = build(tmp_path)
    record = open_record(tmp_path / "record.db", index)
    stored = {state.ad_id: state.embedding for state in RecordReader(record.path).ads()}
    with record.transaction() as transaction:
        for ad in ADS[:2]:
            embedding = stored[ad["ad_id"]]
            assert embedding is not None
            assert transaction.make(Upsert(FeedAd.model_validate(ad), embedding)) is None
    record.close()


def test_it_says_which_encoder_embedded_the_ads(tmp_path: Path):
    feed = write_feed(tmp_path / "shop.jsonl", ADS)
    build_index(inputs(feed, WordEmbedder(), version="words-7"), tmp_path / "index", OPTIONS)
    open_record(tmp_path / "record.db", tmp_path / "index").close()
    found = RecordReader(tmp_path / "record.db").find("plain")
    assert found is not None
    assert found.embedded_by == "words-7"


def test_it_is_opened_again_with_all_that_was_changed(tmp_path: Path):
    index = build(tmp_path)
    record = open_record(tmp_path / "record.db", index)
    with record.transaction() as transaction:
        transaction.make(Upsert(FeedAd.model_validate(ADS[0] | {"title": "Another"}), unit_vectors(1)[0]))
    record.close()
    again = open_record(tmp_path / "record.db", index, synchronous="normal")
    assert again.sequence == 1
    again.close()


class Nowhere:
    def apply(self, states: Sequence[State]) -> None:
        pass


def make_and_forget(path: Path, index: Path, *changes: Change) -> None:
    """As a service does after a merge."""
    with closing(AdWriter(open_record(path, index), Nowhere())) as writer:
        writer.forget_deletions()
        writer.submit(changes).result()


def test_deletions_are_forgotten_when_two_snapshots_have_them_but_those_of_the_index_never(tmp_path: Path):
    """The index that it began with may have to be opened again, and would bring back what is not said to be gone."""
    index, path = build(tmp_path), tmp_path / "record.db"

    def known() -> set[str]:
        with closing(RecordReader(path)) as reader:
            return {state.ad_id for state in reader.page(0, 100) if isinstance(state, AdState)}

    change = partial(make_and_forget, path, index)
    later = [Upsert(FeedAd(ad_id=ad_id, title=ad_id), unit_vectors(1)[0]) for ad_id in ("x", "y", "z")]
    change(*later, Upsert(FeedAd.model_validate(ADS[0] | {"title": "Another"}), unit_vectors(1)[0]))
    change(Delete("x"), Delete("plain"))
    merge(path, index)
    change(Delete("y"))
    assert known() == {"x", "y", "z", "plain"}
    merge(path, index)
    change(PatchAd("z", AdPatch(bid=1)))
    assert known() == {"y", "z", "plain"}  # the older snapshot has y
    shutil.rmtree(Snapshots(path).directory)
    live = LiveIndex.open(path, index)
    [hits] = live.exact_search(unit_vectors(1), [Wanted(10)])
    assert set(hits.ad_ids) == {"z"}


def test_a_snapshot_from_before_forgotten_deletions_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One that was restored from a copy: it has ads of which nothing says any more that they are gone."""
    index, path = build(tmp_path), tmp_path / "record.db"
    snapshots = Snapshots(path)
    make_and_forget(path, index, Upsert(FeedAd(ad_id="x", title="x"), unit_vectors(1)[0]))
    merge(path, index)
    shutil.copytree(snapshots.path_of(1), tmp_path / "copy")
    for number in (2, 3, 4):
        make_and_forget(path, index, Delete("x") if number == 2 else PatchAd("plain", AdPatch(bid=number)))
        merge(path, index)
    make_and_forget(path, index, PatchAd("plain", AdPatch(bid=5)))
    shutil.rmtree(snapshots.directory)
    shutil.copytree(tmp_path / "copy", snapshots.path_of(1))
    live = LiveIndex.open(path, index)
    assert "000000000001: removed, since its record has changes from 3 to 5 alone" in caplog.text
    [hits] = live.exact_search(unit_vectors(1), [Wanted(10)])
    assert "x" not in hits.ad_ids


def test_another_index_is_refused(tmp_path: Path):
    open_record(tmp_path / "record.db", build(tmp_path)).close()
    (tmp_path / "other").mkdir()
    other = build(tmp_path / "other", ADS[:2])
    with pytest.raises(
        RecordError, match=r"record\.db: began with the index shop-\w+, and \S+/other/index is shop-\w+; give"
    ):
        open_record(tmp_path / "record.db", other)


def test_a_record_that_was_not_closed_is_checked_as_a_whole(tmp_path: Path):
    ads = [{"ad_id": f"ad-{number}", "title": f"Title {number}"} for number in range(3000)]
    index, path = build(tmp_path, ads), tmp_path / "record.db"
    open_record(path, index).close()
    content = bytearray(path.read_bytes())
    content[40 * 8192 : 40 * 8192 + 64] = b"\xff" * 64
    path.write_bytes(content)
    open_record(path, index).close()  # what is not read does no harm
    path.with_name("record.db-wal").touch()
    with pytest.raises(RecordError, match=r"record\.db: the record is damaged"):
        open_record(path, index)
    Record(path).close()  # and is not held


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    index = build(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"file/record\.db: cannot be written there"):
        open_record(tmp_path / "file" / "record.db", index)


def test_a_damaged_index_leaves_no_record(tmp_path: Path):
    index = build(tmp_path)
    (index / VECTORS).write_bytes(b"")
    with pytest.raises(ArtifactError, match=VECTORS):
        open_record(tmp_path / "place" / "record.db", index)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["record.db.lock"]


def test_a_kill_on_the_way_leaves_a_whole_record_or_none(tmp_path: Path):
    ads = [{"ad_id": f"ad-{number}", "title": f"Title {number}"} for number in range(3000)]
    index = build(tmp_path, ads)
    path = tmp_path / "place" / "record.db"
    code = (
        "import os, signal, sys; from pathlib import Path; import index.record_seed as seed\n"
        "rows = seed._rows\n"
        "def dying(*arguments):\n"
        "    for number, row in enumerate(rows(*arguments)):\n"
        "        if number == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield row\n"
        "seed._rows = dying\n"
        "seed.open_record(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    for row in (0, 1500, 2999):
        command = [sys.executable, "-c", code, str(path), str(index), str(row)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
        assert not path.exists()
    open_record(path, index).close()
    assert sorted(found.name for found in path.parent.iterdir()) == ["record.db", "record.db.lock"]
    reader = RecordReader(path)
    reader.check()
    assert len(list(reader.ads())) == 3000
