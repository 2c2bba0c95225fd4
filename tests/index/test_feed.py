"""Feeds: what is read, and what is said about the lines that are not."""

import gzip
import io
import json
from pathlib import Path

import pytest

from index.errors import FeedError
from index.feed import FeedReader
from index.lines import MAX_LINE_BYTES, SHOWN_LINES
from terminal import console
from tests.index.support import write_feed

GOOD = {"ad_id": "a", "title": "Cordless drill"}
BAD_LINES = {
    "empty line": (b"", "not JSON"),
    "not JSON": (b"{'ad_id': 1}", "not JSON"),
    "NaN": (b'{"ad_id": "x", "title": "t", "bid": NaN}', "not JSON"),
    "infinite number": (b'{"ad_id": "x", "title": "t", "bid": 1e999}', "not JSON"),
    "lone surrogate": (rb'{"ad_id": "x", "title": "\ud800"}', "not JSON"),
    "not an object": (b'["ad_id", "title"]', "not a JSON object"),
    "not UTF-8": (b'{"ad_id": "x", "title": "\xff"}', "not UTF-8"),
    "no ad_id": (b'{"title": "t"}', "ad_id: field required"),
    "no title": (b'{"ad_id": "x"}', "title: field required"),
    "empty ad_id": (b'{"ad_id": "", "title": "t"}', "ad_id: string should have at least 1 character"),
    "blank title": (b'{"ad_id": "x", "title": " \\n"}', "title: string should have at least 1 character"),
    "numeric ad_id": (b'{"ad_id": 1, "title": "t"}', "ad_id: input should be a valid string"),
    "long ad_id": (json.dumps({"ad_id": "x" * 257, "title": "t"}).encode(), "ad_id: string should have at most 256"),
    "bid is text": (b'{"ad_id": "x", "title": "t", "bid": "0.5"}', "bid: input should be a valid number"),
    "bid is negative": (b'{"ad_id": "x", "title": "t", "bid": -1}', "bid: input should be greater than or equal to 0"),
    "devices is text": (b'{"ad_id": "x", "title": "t", "devices": "mobile"}', "devices: input should be a valid list"),
    "market with a path": (b'{"ad_id": "x", "title": "t", "market": "../us"}', "market: string should match pattern"),
    "market is a number": (b'{"ad_id": "x", "title": "t", "market": 7}', "market: input should be a valid list"),
    "start without zone": (
        b'{"ad_id": "x", "title": "t", "starts_at": "2026-01-01T00:00:00"}',
        "starts_at: input should have timezone info",
    ),
    "window ends early": (
        b'{"ad_id": "x", "title": "t", "hours": [{"days": ["mon"], "from_hour": 9, "to_hour": 9}]}',
        "hours: value error, to_hour must be after from_hour",
    ),
    "negative without a word": (
        b'{"ad_id": "x", "title": "t", "negative_keywords": ["[!]"]}',
        "negative_keywords: value error, negative keyword",
    ),
    "attrs is a list": (b'{"ad_id": "x", "title": "t", "attrs": []}', "attrs: input should be a valid dictionary"),
    "brand is a number": (b'{"ad_id": "x", "title": "t", "brand": 7}', "advertiser_id: input should be a valid string"),
    "duplicate": (b'{"ad_id": "a", "title": "another"}', "duplicate ad_id"),
    "over-long": (json.dumps({"ad_id": "x", "title": "t" * MAX_LINE_BYTES}).encode(), "longer than 1048576 bytes"),
    "deep": (b'{"ad_id": "x", "title": "t", "k": ' + b"[" * 400 + b"]" * 400 + b"}", "nested too deeply"),
    "very deep": (b'{"ad_id": "x", "title": "t", "k": ' + b"[" * 9000 + b"]" * 9000 + b"}", "not JSON"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_counted_by_reason_and_harms_no_other(tmp_path: Path, line: bytes, reason: str):
    reader = FeedReader(write_feed(tmp_path / "feed.jsonl", [GOOD, line, {**GOOD, "ad_id": "b"}]))
    assert [(number, ad.ad_id) for number, ad in reader] == [(1, "a"), (3, "b")]
    report = reader.report(sha256="", not_active=0)
    assert (report.lines, report.ads) == (3, 2)
    [(found, count)] = report.skipped.items()
    assert found.startswith(reason)
    assert count == 1


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_strict_stops_at_the_first_bad_line(tmp_path: Path, line: bytes, reason: str):
    reader = FeedReader(write_feed(tmp_path / "feed.jsonl", [GOOD, line, line]), strict=True)
    with pytest.raises(FeedError, match=rf"feed.jsonl: line 2: {reason}"):
        list(reader)


def test_the_first_bad_lines_are_shown_and_the_rest_counted(tmp_path: Path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "_file", screen)  # `file` would be left set to what standard error is now
    reader = FeedReader(write_feed(tmp_path / "feed.jsonl", [GOOD] + [b"?"] * 50))
    list(reader)
    shown = [line for line in screen.getvalue().splitlines() if "not JSON" in line]
    assert shown == [f"feed.jsonl line {number}: not JSON" for number in range(2, 2 + SHOWN_LINES)]
    assert reader.report(sha256="", not_active=0).skipped == {"not JSON": 50}


@pytest.mark.parametrize("name", ["feed.jsonl", "feed.jsonl.gz", "misnamed.txt.gz"])
def test_gzip_is_told_by_content(tmp_path: Path, name: str):
    path = write_feed(tmp_path / name, [GOOD]).rename(tmp_path / name.removesuffix(".gz"))
    assert [ad.ad_id for _, ad in FeedReader(path)] == ["a"]


@pytest.mark.parametrize(
    ("status", "active"),
    [(None, True), ("active", True), ("Active", True), ("paused", False), ("Disapproved", False), ("", False)],
)
def test_an_ad_that_is_not_active_is_read_as_such(tmp_path: Path, status: str | None, active: bool):
    [(_, ad)] = FeedReader(write_feed(tmp_path / "feed.jsonl", [{**GOOD, "status": status}]), strict=True)
    assert ad.is_active is active


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["any-any"]),
        ({"market": "US", "language": "en"}, ["us-en"]),
        ({"market": "us"}, ["us-any"]),
        ({"market": "", "language": "any"}, ["any-any"]),
        ({"market": ["us", "gb", "US"], "language": ["en", "pt-BR"]}, ["gb-en", "gb-pt_br", "us-en", "us-pt_br"]),
        ({"market": ["us", "any"], "language": []}, ["any-any"]),
    ],
    ids=str,
)
def test_an_ad_is_in_the_segment_of_each_market_and_language(tmp_path: Path, fields: dict, names: list[str]):
    [(_, ad)] = FeedReader(write_feed(tmp_path / "feed.jsonl", [{**GOOD, **fields}]), strict=True)
    assert [key.name for key in ad.segment_keys] == names


def test_places_come_back_as_they_were_given(tmp_path: Path):
    line = {**GOOD, "market": " us ", "language": ["en", "pt-BR"]}
    [(_, ad)] = FeedReader(write_feed(tmp_path / "feed.jsonl", [line]))
    assert (ad.columns()["market"], ad.columns()["language"]) == ("us", ["en", "pt-BR"])


def test_fields_are_kept_and_unknown_ones_become_attributes(tmp_path: Path):
    line = {**GOOD, "brand": "Torvik", "bid": 1, "colour": "red", "attrs": {"price": 3.5}, "market": "us"}
    [(_, ad)] = FeedReader(write_feed(tmp_path / "feed.jsonl", [line]))
    columns = ad.columns()
    assert columns["advertiser_id"] == "Torvik"
    assert columns["bid"] == 1
    assert columns["market"] == "us"
    assert columns["attrs"] == {"colour": "red", "price": 3.5}


def test_an_advertiser_outranks_the_brand(tmp_path: Path):
    [(_, ad)] = FeedReader(write_feed(tmp_path / "feed.jsonl", [{**GOOD, "brand": "Torvik", "advertiser_id": "shop"}]))
    assert ad.columns()["advertiser_id"] == "shop"
    assert ad.columns()["attrs"] == {"brand": "Torvik"}


def test_a_truncated_gzip_is_one_clear_error(tmp_path: Path):
    whole = gzip.compress(b"".join(json.dumps({**GOOD, "ad_id": str(i)}).encode() + b"\n" for i in range(5000)))
    (tmp_path / "feed.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeedError, match=r"feed.gz: the gzip stream ends in the middle, after line \d{3,}"):
        list(FeedReader(tmp_path / "feed.gz"))


def test_a_damaged_gzip_is_one_clear_error(tmp_path: Path):
    whole = bytearray(
        gzip.compress(b"".join(json.dumps({**GOOD, "ad_id": str(i)}).encode() + b"\n" for i in range(99)))
    )
    whole[20:40] = bytes(20)
    (tmp_path / "feed.gz").write_bytes(whole)
    with pytest.raises(FeedError, match=r"feed.gz: (damaged gzip stream|cannot be read) after line"):
        list(FeedReader(tmp_path / "feed.gz"))


def test_a_directory_is_no_feed(tmp_path: Path):
    with pytest.raises(FeedError, match="cannot be read"):
        list(FeedReader(tmp_path))
