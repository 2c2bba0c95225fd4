"""Ads changed while a real server answers: how fast changes are obeyed, and what they cost those who ask.

What it measures: seconds from the answer to a pause until `/retrieve` leaves the ad out, and from sending a new ad
until it is found; the p99 of `/retrieve` while 100 status changes and 10 new ads a second come, and while the graphs
are built anew beside it, against equal stretches without, taken in turns; and the share of a core that changes take.
How: the server, and the merges that it starts, have one core, the clients another. The rate is what keeps the server
busy for seven tenths of the time, since the tail of a queue hangs on that, and the embedding cache is off; with changes
and without, requests come at the same moments. A ratio is that of a stretch to the one before it, and the median of
them counts, since a shared machine has slow seconds. Changes go over the admin listener, from callers who keep their
connections. A merge begins because as many ads were written, with their embeddings, as are scanned at most.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from artifacts.errors import HlmError
from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest
from benchmarks.http_load import request_bytes
from benchmarks.live_server import LiveServer, Made, changes
from benchmarks.load_process import LoadProcess, load_process
from benchmarks.queries import read_queries
from benchmarks.servers import add_arguments, two_cores
from benchmarks.stretches import CELL_HEADINGS, Stretches
from benchmarks.tables import wide_console
from index.ads import AdTable
from index.layout import ADS, VECTORS
from index.live import MERGE_LATER_ADS

TIMEOUT_MS = 10_000
TRIALS = 20
FLIPS_PER_S = 100.0
WRITES_PER_S = 10.0
FLIPPED_ADS = 5_000
ADS_A_BODY = 250
MERGE_STRETCH_S = 2.0
RATE_TRIALS = 3
"""Stretches in which the rate is found that keeps the server as busy as is asked for."""


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    server_core, client_core = two_cores()
    queries = read_queries(args.queries)
    requests = [request_bytes(query, args.top_k, TIMEOUT_MS) for query in queries]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="live-")))
        os.sched_setaffinity(0, {client_core})
        load = stack.enter_context(load_process(requests, {client_core}))
        server = LiveServer(args.encoder, args.index, directory / "live.db", {server_core})
        stack.callback(server.replica.kill)
        figures, rows = _measure(args, server, load, queries)
    table = Table("", title=f"{figures['rate']:,.0f} requests a second")
    for heading in CELL_HEADINGS:
        table.add_column(heading, justify="right")
    for name, stretches in rows.items():
        table.add_row(name, *stretches.cells())
    wide_console().print(table)
    print(json.dumps(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=16, help="stretches with changes, and as many without")
    parser.add_argument("--merges", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a stretch")
    parser.add_argument("--busy", type=float, default=0.7, help="share of its core that requests keep the server busy")
    # In a machine's slow seconds no idle time is left, in which ads are embedded.
    parser.add_argument(
        "--least-made", type=float, default=0.9, help="share of the changes due, or it is no measurement"
    )
    return parser.parse_args()


def _measure(
    args: argparse.Namespace, server: LiveServer, load: LoadProcess, queries: list[str]
) -> tuple[dict[str, Any], dict[str, Stretches]]:
    load.closed_loop(server.port, clients=16, seconds=1.0)
    offered = _Offered(server, load, 0.5 * load.closed_loop(server.port, clients=16, seconds=3.0).queries_per_second)
    for _ in range(RATE_TRIALS):
        offered = replace(offered, rate=offered.rate * args.busy / offered.stretch(args.seconds, 0).core_share)
    flip_s, upsert_s = _freshness(server, queries)
    rounds = _rounds(args, offered, queries)
    merges: _Pairs = []
    for number in range(args.merges):
        quiet = offered.stretch(2 * args.seconds, number)
        merges.append((quiet, _merge(offered, np.load(args.index / VECTORS, mmap_mode="r"), number)))
    rows = _rows(("quiet", "100 flips, 10 new ads a second"), rounds) | _rows(("quiet, later", "merging"), merges)
    figures: dict[str, Any] = {
        "rate": round(offered.rate, 1),
        "failed": sum(stretches.failed for stretches in rows.values()),
        "flip_s": round(flip_s, 4),
        "upsert_s": round(upsert_s, 4),
        "quiet_core_share": round(statistics.mean(quiet.core_share for quiet, _ in rounds), 3),
        "updates_core_share": round(statistics.mean(with_.core_share - quiet.core_share for quiet, with_ in rounds), 3),
    }
    return figures | _p99_ratio("updates", rounds) | _p99_ratio("merge", merges), rows


@dataclass(slots=True)
class _Measured(Stretches):
    """With the share of a core that the server took."""

    core_share: float = 0.0


_Pairs = list[tuple[_Measured, _Measured]]
"""Stretches without something and with it, one right after the other."""


@dataclass(frozen=True, slots=True)
class _Offered:
    """Load at a steady rate, a stretch at a time."""

    server: LiveServer
    load: LoadProcess
    rate: float

    def stretch(self, seconds: float, seed: int) -> _Measured:
        before = self.server.replica.core_s
        running = self.load.begin(self.server.port, rate=self.rate, seconds=seconds, seed=seed)
        loads = [running.result().load]
        return _Measured(loads, (self.server.replica.core_s - before) / seconds)


def _rounds(args: argparse.Namespace, offered: _Offered, queries: list[str]) -> _Pairs:
    """Stretches without changes and with them; requests come at the same moments in both."""
    ad_ids = AdTable.load(args.index / ADS, load_manifest(args.index, IndexManifest).ad_count).ad_ids[:FLIPPED_ADS]
    flips, writes = Made("status changes", FLIPS_PER_S), Made("new ads", WRITES_PER_S)
    rounds = []
    for number in range(args.rounds):
        quiet = offered.stretch(args.seconds, number)
        with changes(offered.server, ad_ids, queries, flips, writes):
            rounds.append((quiet, offered.stretch(args.seconds, number)))
    flips.check(args.least_made)
    writes.check(args.least_made)
    return rounds


def _merge(offered: _Offered, vectors: np.ndarray, number: int) -> _Measured:
    """Load until a merge that new ads bring about is over."""
    before, merging = offered.server.merges, _Measured()
    _write_many(offered.server, vectors, number)
    while not merging.loads or offered.server.merges == before:  # of a small index it may have ended already
        merging.loads += offered.stretch(MERGE_STRETCH_S, len(merging.loads)).loads
    return merging


def _rows(names: tuple[str, str], pairs: _Pairs) -> dict[str, Stretches]:
    """All stretches without and all with, where there are any."""
    if not pairs:
        return {}
    return {
        name: Stretches([load for one in side for load in one.loads])
        for name, side in zip(names, zip(*pairs, strict=True), strict=True)
    }


def _p99_ratio(what: str, pairs: _Pairs) -> dict[str, Any]:
    """The median of the pairs, and all: a machine's slow moments last for longer than a pair, and hit both alike."""
    ratios = [with_.latency_ms(99) / without.latency_ms(99) for without, with_ in pairs]
    if not ratios:
        return {}
    return {
        f"{what}_p99_ratio": round(statistics.median(ratios), 3),
        f"{what}_p99_ratios": [round(ratio, 2) for ratio in sorted(ratios)],
    }


def _freshness(server: LiveServer, queries: list[str]) -> tuple[float, float]:
    """The longest that it took until a pause was obeyed, and until a new ad was found."""
    flips, upserts = [], []
    for trial, query in enumerate(queries[:TRIALS]):
        ad_id, new = server.ads(query)[0], f"fresh-{trial}"
        server.set_status(ad_id, "paused")
        flips.append(_seconds_until_found(server, query, ad_id, time.perf_counter(), found=False))
        server.set_status(ad_id, "active")
        started = time.perf_counter()
        server.put([{"ad_id": new, "title": f"{query} {new}"}])
        upserts.append(_seconds_until_found(server, f"{query} {new}", new, started, found=True))
    return max(flips), max(upserts)


def _seconds_until_found(server: LiveServer, query: str, ad_id: str, started: float, *, found: bool) -> float:
    """From `started` until an ad is among those of a query, or is not."""
    while (ad_id in server.ads(query)) != found:
        pass
    return time.perf_counter() - started


def _write_many(server: LiveServer, vectors: np.ndarray, number: int) -> None:
    """As many new ads as a merge begins at, near those that there are."""
    chance = np.random.default_rng(number)
    near = np.array(vectors[chance.choice(len(vectors), MERGE_LATER_ADS)])
    near += chance.standard_normal(near.shape).astype(np.float32) * 0.02
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    ads = [
        {"ad_id": f"many-{number}-{row}", "title": f"many {row}", "embedding": vector}
        for row, vector in enumerate(np.round(near, 6).tolist())
    ]
    for start in range(0, len(ads), ADS_A_BODY):
        server.put(ads[start : start + ADS_A_BODY])


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
