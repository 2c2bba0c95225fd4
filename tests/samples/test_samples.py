"""The made-up ads."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hlm
from index.feed import FeedReader
from samples.generate import feed_bytes, generate_ads
from samples.tables import DEPARTMENTS, DETAILS, LANGUAGES, MARKETS, PRODUCTS

ADS = list(generate_ads(10_000, seed=1))


def run(*arguments: str | Path):
    return CliRunner().invoke(hlm.app, ["samples", *map(str, arguments)])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    assert feed_bytes(300, seed=1) == feed_bytes(300, seed=1)
    assert feed_bytes(300, seed=1) != feed_bytes(300, seed=2)


def test_the_command_writes_once(tmp_path: Path):
    out = tmp_path / "deep" / "feed.jsonl.gz"
    assert run("--out", out, "--ads", 50).exit_code == 0
    assert gzip.decompress(out.read_bytes()).count(b"\n") == 50
    written = out.stat().st_mtime_ns
    assert "up to date" in run("--out", out, "--ads", 50).output
    assert out.stat().st_mtime_ns == written
    assert "51 ads" in run("--out", out, "--ads", 51).output


def test_the_index_takes_every_line(tmp_path: Path):
    (tmp_path / "feed.jsonl.gz").write_bytes(feed_bytes(2000, seed=5))
    reader = FeedReader(tmp_path / "feed.jsonl.gz", strict=True)
    ads = [ad for _, ad in reader]
    assert reader.bad_count == 0
    assert 0.85 < sum(ad.is_active for ad in ads) / 2000 < 0.97
    assert all(ad.model_extra == {} for ad in ads)


def test_markets_languages_and_statuses_are_mixed_as_the_tables_say():
    markets = Counter(ad["market"] for ad in ADS)
    for name, market in MARKETS.items():
        assert markets[name] / len(ADS) == pytest.approx(market.share, abs=0.02)
    assert {(ad["market"], ad["language"]) for ad in ADS} == {
        (name, market.language) for name, market in MARKETS.items()
    }
    assert {ad["category"].partition(" > ")[0] for ad in ADS} == set(DEPARTMENTS)
    assert Counter(ad["status"] for ad in ADS)["active"] / len(ADS) == pytest.approx(0.92, abs=0.02)
    assert {"desktop", "mobile", "tablet"} == {device for ad in ADS for device in ad["devices"]}


def test_bids_spread_around_what_a_department_pays():
    for department, median in (("Services", 3.2), ("Clothing", 0.5)):
        bids = sorted(ad["bid"] for ad in ADS if ad["market"] == "us" and ad["category"].startswith(department))
        assert bids[len(bids) // 2] == pytest.approx(median, rel=0.25)
        assert bids[0] < median / 2 < median * 2 < bids[-1]
    assert min(ad["bid"] for ad in ADS) > 0


def test_titles_are_clean_and_nearly_all_different():
    titles = [ad["title"] for ad in ADS]
    assert len(set(titles)) > 0.9 * len(titles)
    for title in titles:
        assert title == " ".join(title.split())
        assert "{" not in title
        assert not re.search(r"\D/\D", title), "names of equal meaning were not parted"


def test_every_ad_has_its_own_id_and_a_page_on_a_reserved_domain():
    assert len({ad["ad_id"] for ad in ADS}) == len(ADS)
    hosts = {ad["landing_url"].split("/")[2] for ad in ADS}
    assert all(host.endswith(".example") and host.isascii() for host in hosts)
    assert len({ad["advertiser_id"] for ad in ADS}) > 50


def test_a_known_product_is_advertised_in_each_language():
    drills = [ad["title"] for ad in ADS if ad["category"] == "Tools > Cordless Drill"]
    for name in ("Cordless Drill", "Akkuschrauber", "Perceuse sans fil", "コードレスドリル"):
        assert any(name in title for title in drills)


def test_the_tables_agree_with_each_other():
    for product in PRODUCTS:
        assert product.department in DEPARTMENTS
        for detail in product.details.split():
            key, _, allowed = detail.partition("=")
            assert set(filter(None, allowed.split("/"))) <= set(DETAILS[key].values.split()), (product, key)
    for key, detail in DETAILS.items():
        for language in LANGUAGES:
            text = getattr(detail, language)
            assert "{}" in text or len(text.split("/")) == len(detail.values.split()), (key, language)


def test_ads_are_plain_json():
    assert json.loads(json.dumps(ADS[:100])) == ADS[:100]
