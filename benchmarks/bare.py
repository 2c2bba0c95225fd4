"""The limit: tokenise, encode and search in a plain loop, without HTTP, queue or threads.

Run as a process of its own, so that it can be pinned to the server's core: it reads one JSON request a line,
`{"batch_size": 8, "seconds": 3}`, runs that long and answers one line, the milliseconds that each batch took.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

from benchmarks.queries import read_queries
from index.ad_index import AdIndex
from index.filters import Wanted
from index.load import load_index
from memory import ask_for_huge_pages
from service.encoder import Encoder


def run_bare(
    encoder: Encoder, ad_index: AdIndex, queries: Iterator[str], *, batch_size: int, top_k: int, seconds: float
) -> list[float]:
    """Answer batches of `batch_size` queries one after the other for `seconds`; the milliseconds of each."""
    took: list[float] = []
    ends = perf_counter() + seconds
    while perf_counter() < ends:
        batch = list(islice(queries, batch_size))
        started = perf_counter()
        answer_bare(encoder, ad_index, batch, [Wanted(top_k)] * batch_size)
        took.append((perf_counter() - started) * 1e3)
    return took


def answer_bare(encoder: Encoder, ad_index: AdIndex, queries: Sequence[str], wanted: Sequence[Wanted]) -> None:
    """One batch: text to ids of ads."""
    token_ids = [encoder.tokenize(query) for query in queries]
    for hits in ad_index.search(encoder.encode(token_ids), wanted):
        _ = hits.json_ids


def main() -> None:
    """Serve measurements over standard input and output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--huge-pages", action="store_true", help="lay the memory as the service does")
    args = parser.parse_args()
    if args.huge_pages:
        ask_for_huge_pages()
    encoder, _ = Encoder.load(args.encoder)
    ad_index = load_index(args.index)
    queries = cycle(read_queries(args.queries))
    run_bare(encoder, ad_index, queries, batch_size=8, top_k=args.top_k, seconds=1)
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        print(json.dumps(run_bare(encoder, ad_index, queries, top_k=args.top_k, **wanted)), flush=True)


if __name__ == "__main__":
    main()
