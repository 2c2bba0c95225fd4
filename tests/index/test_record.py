"""The record: what it keeps, what it numbers, and what it says of files it cannot use."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.changes import AdPatch, AdState, CampaignPatch, CampaignState, Delete, PatchAd, PatchCampaign
from index.errors import RecordError, RecordFullError, UnknownAdError
from index.feed import FeedAd
from index.record import Record
from index.record_reader import RecordReader
from tests.index.records import EMBEDDINGS, ORIGIN, contents, embedding_bytes, empty_record, make, upsert

PAUSE = AdPatch(status="paused")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return empty_record(tmp_path / "record.db")


@pytest.fixture
def record(path: Path):
    opened = Record(path)
    yield opened
    opened.close()


def deleted(path: Path) -> set[str]:
    return {state.ad_id for state in RecordReader(path).page(0, 100) if isinstance(state, AdState) and not state.ad}


def forget(record: Record, since: int, before: int) -> int:
    with record.transaction() as transaction:
        return transaction.forget_deletions(since, before)


def test_deletions_are_forgotten_up_to_a_number_and_the_last_change_never(path: Path, record: Record):
    make(record, upsert("a"), upsert("b"), upsert("c"), Delete("a"), Delete("b"), upsert("a"), Delete("c"))
    assert forget(record, 0, 5) == 5  # that of b is change 5 itself
    assert deleted(path) == {"b", "c"}
    assert RecordReader(path).forgotten == 0
    assert forget(record, 5, 7) == 7
    assert deleted(path) == {"c"}
    assert RecordReader(path).forgotten == 7
    assert record.sequence == RecordReader(path).sequence == 7
    record.close()
    again = Record(path)
    assert (again.sequence, make(again, upsert("b"))[0].sequence) == (7, 8)
    assert contents(path).keys() == {"a", "b"}
    again.close()


def test_many_deletions_are_forgotten_in_parts(path: Path, record: Record, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("index.record.FORGOTTEN_AT_ONCE", 3)
    make(record, *map(upsert, "abcdefgh"), *map(Delete, "abcdefg"))  # by changes 9 to 15
    ends = [forget(record, 0, 15)]
    while ends[-1] < 15:
        ends.append(forget(record, ends[-1], 15))
        assert RecordReader(path).forgotten == ends[-1]
    assert ends == [12, 15]
    assert deleted(path) == {"g"}


def test_an_ad_is_kept_whole_with_its_embedding(path: Path, record: Record):
    fields = {"bid": 0.1, "status": "paused", "devices": ["mobile"], "attrs": {"a": [1, {"b": None}]}, "colour": "red"}
    make(record, upsert("a/ü\x00\U0001f600", 3, embedded_by="minilm-1", **fields))
    [state] = RecordReader(path).ads()
    assert state.ad is not None
    assert (
        state.ad.columns()
        == FeedAd.model_validate({"ad_id": state.ad_id, "title": f"Title of {state.ad_id}"} | fields).columns()
    )
    assert (state.sequence, state.ad_id, embedding_bytes(state)) == (1, "a/ü\x00\U0001f600", EMBEDDINGS[3].tobytes())
    found = RecordReader(path).find(state.ad_id)
    assert found is not None
    assert (found.state.sequence, found.embedded_by) == (1, "minilm-1")
    assert RecordReader(path).find("a/ü") is None


def test_each_change_has_the_next_number_and_what_changes_nothing_has_none(path: Path, record: Record):
    paused = PatchAd("a", PAUSE)
    exhausted = PatchCampaign("c", CampaignPatch(budget="exhausted"))
    states = make(record, upsert("a"), upsert("b"), upsert("a"), paused, paused, exhausted, exhausted, Delete("b"))
    assert [state and state.sequence for state in states] == [1, 2, None, 3, None, 4, None, 5]
    assert record.sequence == 5
    assert RecordReader(path).sequence == 5
    record.close()
    again = Record(path)
    assert make(again, upsert("b"))[0].sequence == 6
    again.close()


def test_an_unknown_ad_can_neither_be_patched_nor_deleted(record: Record):
    make(record, upsert("a"), Delete("a"))
    for change in (PatchAd("a", PAUSE), Delete("a"), PatchAd("b", PAUSE), Delete("b")):
        with pytest.raises(UnknownAdError, match=f"there is no ad '{change.ad_id}'"):
            make(record, change)
    assert record.sequence == 2


def test_a_deleted_ad_may_come_back(path: Path, record: Record):
    states = make(record, upsert("a"), Delete("a"), upsert("a"))
    assert [state.ad and state.ad.ad_id for state in states] == ["a", None, "a"]
    assert contents(path).keys() == {"a"}


@pytest.mark.parametrize(
    ("again", "comes_with_its_embedding"),
    [
        (PatchAd("a", AdPatch(bid=2)), False),
        (upsert("a", 0, bid=3, status="paused"), False),
        (upsert("a", 1, bid=1), True),
        (upsert("a", 0, bid=1, title="Another"), True),
        (upsert("a", 0, bid=1, colour="red"), True),
    ],
    ids=["patched", "written with another bid", "another embedding", "another title", "another attribute"],
)
def test_a_state_has_its_embedding_where_more_than_status_and_bid_changed(
    path: Path, record: Record, again: Any, comes_with_its_embedding: bool
):
    make(record, upsert("a", 0, bid=1))
    [state] = make(record, again)
    [replayed] = RecordReader(path).changes_since(1)
    assert isinstance(replayed, AdState)
    for found in (state, replayed):
        assert (found.embedding is not None) == comes_with_its_embedding
        assert found.ad.columns() == state.ad.columns()
    [from_the_start] = RecordReader(path).changes_since(0)
    assert embedding_bytes(from_the_start) == contents(path)["a"][1]
    assert RecordReader(path).page(0, 10)[0].embedding is None


def test_changes_come_in_their_order_and_each_once(path: Path, record: Record):
    make(record, *(upsert(f"ad-{number}") for number in range(1200)))
    make(record, PatchCampaign("c", CampaignPatch(pass_through_rate=0.5)), Delete("ad-7"), PatchAd("ad-3", PAUSE))
    reader = RecordReader(path)
    changes = list(reader.changes_since(100))
    assert [state.sequence for state in changes] == [*range(101, 1204)]
    assert isinstance(changes[-3], CampaignState)
    assert changes[-3].campaign.pass_through_rate == 0.5
    assert (changes[-2].ad_id, changes[-2].ad) == ("ad-7", None)
    assert (changes[-1].ad_id, changes[-1].ad.status, changes[-1].embedding) == ("ad-3", "paused", None)
    assert [state.sequence for state in reader.page(1198, 4)] == [1199, 1200, 1201, 1202]
    assert list(reader.changes_since(1203)) == []


def test_no_change_falls_between_the_ads_and_the_campaigns_of_a_page(
    path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
):
    """An ad and then a campaign are changed when the ads of a page are read and its campaigns are not."""
    make(record, upsert("a"))
    reader = RecordReader(path)
    read, late = reader._read, [PatchCampaign("c", CampaignPatch(budget="exhausted")), upsert("late")]

    def interrupted(query: str, *values: object) -> list[Any]:
        if "FROM campaigns" in query and late:
            make(record, late.pop(), late.pop())
        return read(query, *values)

    monkeypatch.setattr(reader, "_read", interrupted)
    assert [state.sequence for state in reader.changes_since(0)] == [1, 2, 3]
    reader.close()


def test_a_reader_that_stands_still_sees_no_later_change(path: Path, record: Record):
    make(record, upsert("a"))
    reader = RecordReader(path)
    with reader.standing_still() as sequence:
        make(record, upsert("b"))
        assert sequence == reader.sequence == 1
        assert [state.ad_id for state in reader.ads()] == ["a"]
    assert reader.sequence == 2


def test_campaigns_keep_what_a_patch_leaves_out(path: Path, record: Record):
    patches = [
        {"budget": "exhausted"},
        {"negative_keywords": ["free"]},
        {"hours": [{"days": ["mon"], "from_hour": 8, "to_hour": 20}]},
    ]
    make(record, *(PatchCampaign("c", CampaignPatch.model_validate_json(json.dumps(patch))) for patch in patches))
    [state] = RecordReader(path).campaigns()
    campaign = state.campaign
    assert (state.sequence, campaign.budget, campaign.negative_keywords) == (3, "exhausted", ["free"])
    assert campaign.hours is not None
    assert campaign.hours[0].to_hour == 20
    assert RecordReader(path).find_campaign("c") == state
    assert RecordReader(path).find_campaign("d") is None


def test_a_transaction_that_fails_leaves_nothing_behind(path: Path, record: Record):
    make(record, upsert("a"))
    with pytest.raises(UnknownAdError):
        make(record, upsert("b"), Delete("c"))
    assert contents(path).keys() == {"a"}
    assert make(record, upsert("c"))[0].sequence == 2


def test_a_full_disk_refuses_all_of_a_transaction_and_the_next_one_is_made(path: Path, record: Record):
    [pages] = record._db.execute("PRAGMA page_count").fetchone()
    record._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(RecordFullError, match=r"record\.db: there is no room on the disk"):
        make(record, *(upsert(f"ad-{number}", description="x" * 2000) for number in range(100)))
    assert contents(path) == {}
    record._db.execute("PRAGMA max_page_count = 1000000")
    assert make(record, upsert("a"))[0].sequence == 1


def test_one_process_alone_writes(path: Path, record: Record):
    with pytest.raises(RecordError, match=r"record\.db: another process writes this record"):
        Record(path)
    record.close()
    Record(path).close()


UNFIT = {
    "missing": (lambda path: path.unlink(), "there is no record"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "there is no record"),
    "text": (
        lambda path: path.write_text("not a database, whatever its name\n" * 99),
        "damaged .file is not a database",
    ),
    "empty": (lambda path: path.write_bytes(b""), "is a file of another kind"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:20_000]), "damaged .database disk image is malformed"),
    "of another program": (
        lambda path: (path.unlink(), sqlite3.connect(path).execute("CREATE TABLE t (x)")),
        "of another kind",
    ),
    "of a later format": (
        lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 3"),
        "of format 3; this version reads format 2",
    ),
}


@pytest.mark.parametrize(("spoil", "sentence"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("opened", [Record, RecordReader])
@pytest.mark.filterwarnings("ignore:unclosed database")
def test_a_file_that_cannot_be_used_is_named_in_one_sentence(path: Path, spoil: Any, sentence: str, opened: Any):
    spoil(path)
    with pytest.raises(RecordError, match=rf"record\.db: .*{sentence}") as error:
        opened(path)
    assert "\n" not in str(error.value)


def test_a_check_finds_flipped_bytes(path: Path, record: Record):
    make(record, *(upsert(f"ad-{number}", number % 64, description="x" * 900) for number in range(500)))
    record.close()
    RecordReader(path).check()
    content = bytearray(path.read_bytes())
    for page in range(40, 60):
        content[page * 8192 : page * 8192 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.db: the record is damaged"):
        RecordReader(path).check()


def test_a_copy_made_while_it_is_written_is_whole(path: Path, record: Record, tmp_path: Path):
    make(record, upsert("a"))
    with sqlite3.connect(path) as source, sqlite3.connect(tmp_path / "copy.db") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    make(record, upsert("b"))
    assert contents(tmp_path / "copy.db").keys() == {"a"}
    assert RecordReader(tmp_path / "copy.db").origin == ORIGIN


AD_IDS = st.sampled_from(["a", "b", "c"])
CHANGES = st.lists(
    st.one_of(
        st.builds(
            upsert, AD_IDS, st.integers(0, 2), bid=st.sampled_from([None, 1.0, 2.0]), title=st.sampled_from("xy")
        ),
        st.builds(Delete, AD_IDS),
        st.builds(PatchAd, AD_IDS, st.builds(AdPatch, status=st.sampled_from(["active", "paused"]))),
        st.builds(PatchAd, AD_IDS, st.builds(AdPatch, bid=st.sampled_from([None, 3.0]))),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, cut=st.integers(0, 40))
def test_what_changed_since_any_moment_leads_to_the_same_ads(tmp_path: Path, changes: list[Any], cut: int):
    """A plain dict is told of each change; another starts at the cut and is told only of what has changed since."""
    shutil.rmtree(tmp_path / "it", ignore_errors=True)
    (tmp_path / "it").mkdir()
    path = empty_record(tmp_path / "it" / "record.db")
    record = Record(path)
    expected: dict[str, Any] = {}
    at_cut: tuple[int, dict[str, Any]] = (0, {})
    for position, change in enumerate(changes):
        if position == cut:
            at_cut = (record.sequence, dict(expected))
        try:
            [state] = make(record, change)
        except UnknownAdError:
            assert change.ad_id not in expected
            continue
        apply(expected, state)
    since, ads = at_cut
    for state in RecordReader(path).changes_since(since):
        apply(ads, state)
    record.close()
    assert ads == expected == {ad_id: (ad.columns(), vector) for ad_id, (ad, vector) in contents(path).items()}


def apply(ads: dict[str, Any], state: AdState | None) -> None:
    if state is None:
        return
    if state.ad is None:
        ads.pop(state.ad_id, None)
        return
    vector = ads[state.ad_id][1] if state.embedding is None else embedding_bytes(state)
    ads[state.ad_id] = (state.ad.columns(), vector)
