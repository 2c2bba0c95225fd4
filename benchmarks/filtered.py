"""Filtered search: recall, cost and correctness on real ads with made-up targeting.

What it measures: ann_recall@100 against exact search with the same filter, and the p99 of a search as a multiple of the
unfiltered one's, at pass rates from 90 to 0.5 %, where who passes is random, and where it follows the topic; and how
many of a million ads that were returned to requests of every kind should not have been.
How: topics are the ads nearest to one of 512 ads drawn at random; a request may get ads of some of them, drawn anew for
each. All kinds of searches take turns, one at a time on this thread, so that what else the machine does hits all alike;
seconds are those of the thread. Pass rates are of one segment with all ads; the million is of an index with markets.
"""

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.errors import HlmError
from artifacts.manifest import EncoderManifest
from artifacts.store import file_sha256, load_manifest, write_atomic
from benchmarks.eligible import CAMPAIGNS, NOW, advertiser_of, ineligible, random_filters, target
from benchmarks.pass_rates import SEED, TOP_K, category, measure, show, topics, worst
from benchmarks.queries import read_queries
from cores import usable_cores
from index.build import BuildInputs, BuildOptions, EncoderInput, build_index
from index.embed import embed_ads, embed_queries
from index.filters import Wanted
from index.ingest import read_ads
from index.load import FrozenIndex, load_index
from service.encoder import Encoder

AT = NOW.timestamp()
CHECKED_AT_ONCE = 8
"""Requests in a batch."""


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--feed", type=Path, nargs="+", required=True, help="ads; targeting is added")
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--work", type=Path, default=Path("var/filtered"), help="where indexes are kept for next time")
    parser.add_argument("--searches", type=int, default=1000, help="of each kind")
    parser.add_argument("--returned", type=int, default=1_000_000, help="ads to check")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    encoder = Encoder.load(args.encoder)[0]
    texts = [" ".join(text.split()) for text in read_queries(args.queries)]
    queries = embed_queries(texts, encoder)
    whole, _ = _index(args, encoder, places=False)
    rates = measure(whole, queries, args.searches, at=AT)
    show(rates)
    segmented, ads = _index(args, encoder, places=True)
    checked, wrong = _check(segmented, ads, queries, texts, args.returned)
    print(f"{wrong} of {checked:,} returned ads should not have been")
    print(json.dumps(worst(rates) | {"ineligible": wrong}))


def _index(
    args: argparse.Namespace, encoder: Encoder, *, places: bool
) -> tuple[FrozenIndex, dict[str, dict[str, Any]]]:
    """An index of all ads with targeting, and its feed by ad_id."""
    vectors = _vectors(args, encoder)
    topic = topics(np.load(vectors, mmap_mode="r"))
    chance = random.Random(SEED)
    ads = [
        target(ad, chance, places=places) | {"category": category(number)}
        for ad, number in zip(_lines(args.feed), topic.tolist(), strict=True)
    ]
    name = "markets" if places else "one-segment"
    feed, campaigns = args.work / f"{name}.jsonl", args.work / "campaigns.jsonl"
    write_atomic(feed, "\n".join(map(json.dumps, ads)).encode())
    # Of the pass rates only one filter is to decide at a time.
    described = [{"campaign_id": key, **value} for key, value in CAMPAIGNS.items()] if places else []
    write_atomic(campaigns, "\n".join(map(json.dumps, described)).encode())
    manifest = load_manifest(args.encoder, EncoderManifest)
    given = EncoderInput(manifest, lambda: encoder)
    inputs = BuildInputs(feed, manifest.space, given, vectors, args.queries, campaigns if places else None)
    build_index(inputs, args.work / name, BuildOptions())
    return load_index(args.work / name), {ad["ad_id"]: ad for ad in ads}


def _lines(feeds: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in feeds:
        content = path.read_bytes()
        yield from map(json.loads, (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines())


def _vectors(args: argparse.Namespace, encoder: Encoder) -> Path:
    """The ads' embeddings as a file, made once."""
    key = "-".join([args.encoder.name, *(file_sha256(path)[:8] for path in args.feed)])
    path: Path = args.work / f"{key}.npy"
    if not path.exists():
        plain, shards = args.work / "plain.jsonl", args.work / f"{key}.shards"
        write_atomic(plain, "\n".join(map(json.dumps, _lines(args.feed))).encode())
        shards.mkdir(exist_ok=True)
        ads = read_ads(plain, sha256="", embeddings_from=None, dim=encoder.space.dim, strict=True).ads
        vectors = np.empty((len(ads), encoder.space.dim), dtype=np.float32)
        embed_ads(ads, encoder, vectors, shards, threads=usable_cores())
        np.save(path, vectors)
    return path


def _check(
    ad_index: FrozenIndex,
    ads: dict[str, dict[str, Any]],
    queries: NDArray[np.float32],
    texts: Sequence[str],
    returned: int,
) -> tuple[int, int]:
    """How many returned ads were checked, and how many of them were wrong; ads are paused and resumed all the while."""
    chance = random.Random(SEED)
    advertisers = sorted({advertiser_of(ad) for ad in ads.values()} - {""})
    categories = sorted({ad["category"] for ad in ads.values()})
    by_row = list(ads.values())
    checked = wrong = number = 0
    while checked < returned:
        wanted = []
        for _ in range(CHECKED_AT_ONCE):
            filters = random_filters(chance, advertisers, categories)
            text = texts[number % len(texts)] + chance.choice(["", "", " cheap", " used"])
            wanted.append(Wanted(TOP_K, filters, text.lower(), f"r-{number}", AT))
            number += 1
        chosen = [(number - CHECKED_AT_ONCE + i) % len(queries) for i in range(CHECKED_AT_ONCE)]
        for one, hits in zip(wanted, ad_index.search(queries[chosen], wanted), strict=True):
            plain = replace(one, query=_plain(one.query))
            wrong += ineligible([ads[ad_id] for ad_id in hits.ad_ids], plain)
            checked += len(hits.rows)
        for row in islice(iter(lambda: chance.randrange(len(by_row)), -1), 5):
            by_row[row]["status"] = "active" if by_row[row]["status"] == "paused" else "paused"
            ad_index.eligibility.set_active(row, by_row[row]["status"] == "active")
    return checked, wrong


def _plain(text: str) -> str:
    """Words as the oracle compares them, by rules of its own: what is no letter or digit separates."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.replace("'", "")).split())


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
