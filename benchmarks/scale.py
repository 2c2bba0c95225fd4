"""What an index costs as it grows: building, memory, opening, searching, with each library that holds graphs.

How: made-up embeddings (`benchmarks/clusters.py`) with short ads, all in one segment, the hardest case. Each index is
built by `hlm index build` to the same ann_recall, then opened and searched in a process of its own, one query at a time
on one thread, without a filter and with (`benchmarks/pass_rates.py`), then served from its start until it is ready:
once with its files in the page cache, once without.
Builds are kept in the work directory and not made again.
How to read it: times of builds and searches are processor time, so that a busy machine hardly shows; memory is what the
process holds beside files mapped from disk; `ready` is what a clock says, so wants a machine of its own. Rows of sizes
above those measured are extrapolated from the two largest, and marked with ~: times of builds and searches by a power
law, memory and starts by a straight line.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.table import Table

from artifacts.errors import HlmError
from artifacts.manifest import MANIFEST_NAME, EncoderManifest, IndexManifest
from artifacts.store import load_manifest, write_atomic
from benchmarks.clusters import clustered
from benchmarks.errors import BenchmarkError
from benchmarks.pass_rates import PassRate, category, show, topics
from benchmarks.servers import serving
from benchmarks.tables import wide_console

BACKENDS = ("hnswlib", "faiss")
K = 100
TARGET_RECALL = 0.95
NO_BOUNDS = {"HLM_SWAP__MIN_GOLDEN_OVERLAP": "0", "HLM_SWAP__MIN_ANN_RECALL": "0"}
"""The encoder knows nothing of made-up embeddings."""
BY_POWER = ("build_cpu_s", "ef_search", "p50_us", "p99_us")
LINEAR = ("memory_bytes", "ready_s", "cold_ready_s")
"""What has a part that every process pays, and one that grows with the ads."""
HEADINGS = {
    "ads": "ads",
    "backend": "backend",
    "build_cpu_s": "build, CPU minutes",
    "memory_bytes": "memory, bytes an ad",
    "ef_search": "ef_search",
    "ann_recall": f"ann_recall@{K}",
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "ready_s": "ready, s",
    "cold_ready_s": "ready from disk, s",
}

Figures = dict[str, Any]


def main() -> None:
    """Measure all, print the table, and the figures as JSON on the last line."""
    args = _arguments()
    figures = [measure(args.work, size, backend, args.encoder) for size in args.sizes for backend in args.backends]
    if len(args.sizes) > 1:
        figures += [extrapolate(of_backend(figures, backend), args.beyond) for backend in args.backends]
    _report(figures)


def measure(work: Path, size: int, backend: str, encoder: Path) -> Figures:
    """All figures of one size and backend."""
    directory = work / f"{size}"
    ads = _make_ads(directory, size, encoder)
    index = directory / backend
    build = _build(ads, index, backend)
    manifest = load_manifest(index, IndexManifest)
    [segment] = manifest.segments
    probe = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_probe", str(index), "--k", str(K)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        "ads": size,
        "backend": backend,
        "ann_recall": segment.ann_recall,
        "ef_search": segment.ef_search,
        **build,
        **json.loads(probe.stdout),
        "cold_ready_s": _ready_s(encoder, index, manifest, cold=True),
        "ready_s": _ready_s(encoder, index, manifest, cold=False),
    }


def of_backend(figures: Iterable[Figures], backend: str) -> list[Figures]:
    """Those of one backend, in their order."""
    return [one for one in figures if one["backend"] == backend]


def extrapolate(measured: list[Figures], size: int) -> Figures:
    """What lines and power laws through the two largest sizes say of a larger one; recall is what was asked for."""
    smaller, larger = sorted(measured, key=lambda one: one["ads"])[-2:]
    guessed = {"ads": size, "backend": larger["backend"], "ann_recall": TARGET_RECALL, "extrapolated": True}
    for name in LINEAR:
        slope = (larger[name] - smaller[name]) / (larger["ads"] - smaller["ads"])
        guessed[name] = larger[name] + slope * (size - larger["ads"])
    for name in BY_POWER:
        power = math.log(larger[name] / smaller[name]) / math.log(larger["ads"] / smaller["ads"])
        guessed[name] = larger[name] * (size / larger["ads"]) ** power
    return guessed


def _make_ads(directory: Path, size: int, encoder: Path) -> Path:
    """Feed, embeddings and their space, in a directory that both backends share; an earlier run's are kept."""
    ads = directory / "ads"
    if ads.is_dir():
        return ads
    making = directory / "making"
    making.mkdir(parents=True, exist_ok=True)
    space = load_manifest(encoder, EncoderManifest).space
    (making / "space.json").write_text(space.model_dump_json())
    vectors = np.lib.format.open_memmap(making / "embeddings.npy", "w+", np.float32, (size, space.dim))
    clustered(vectors)
    vectors.flush()
    with (making / "feed.jsonl").open("wb") as feed:
        feed.writelines(starmap(_line, enumerate(topics(vectors).tolist())))
    making.rename(ads)
    return ads


def _line(number: int, topic: int) -> bytes:
    ad = {
        "ad_id": f"ad-{number:08d}",
        "title": f"Made-up offer number {number} of a catalogue that grows",
        "description": "What an ad says below its title, in about as many words as ads have there, and no more.",
        "advertiser_id": f"advertiser-{number % 5000}",
        "campaign_id": f"campaign-{number % 20000}",
        "category": category(topic),
        "bid": round(0.05 + number % 400 / 100, 2),
        "landing_url": f"https://shop.example/offers/{number}",
    }
    return orjson.dumps(ad, option=orjson.OPT_APPEND_NEWLINE)


def _build(ads: Path, index: Path, backend: str) -> Figures:
    """Build, or tell what the build cost that was made before."""
    costs = index.with_suffix(".json")
    if costs.is_file() and (index / MANIFEST_NAME).is_file():
        figures: Figures = json.loads(costs.read_text())
        return figures
    options: list[str | Path] = [
        "--space",
        ads / "space.json",
        "--embeddings",
        ads / "embeddings.npy",
        "--backend",
        backend,
    ]
    command: list[str | Path] = [sys.executable, "hlm.py", "index", "build", "--out", index, *options]
    command += ["--feed", ads / "feed.jsonl", "--target-recall", str(TARGET_RECALL), "--k", str(K), "--force"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise BenchmarkError(f"{index}: could not be built; the error is above")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {"build_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    write_atomic(costs, json.dumps(figures).encode())
    return figures


def _ready_s(encoder: Path, index: Path, manifest: IndexManifest, *, cold: bool) -> float:
    """From the start of `hlm serve` until it is ready."""
    for name in manifest.files:
        _in_page_cache(index / name, wanted=not cold)
    args = argparse.Namespace(encoder=encoder, index=index)
    started = time.perf_counter()
    with serving(args, os.sched_getaffinity(0), NO_BOUNDS):
        return time.perf_counter() - started


def _in_page_cache(path: Path, *, wanted: bool) -> None:
    with path.open("rb") as file:
        if wanted:
            while file.read(1 << 24):
                pass
        else:
            os.fsync(file.fileno())  # a page that is not on disk yet cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="encoder artifact; its embedding space is used")
    parser.add_argument(
        "--work", type=Path, default=Path("var/scale"), help="for ads and indexes; a million take 12 GB"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="in ads, rising")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--beyond", type=int, default=10_000_000, help="size to extrapolate to")
    return parser.parse_args()


def _report(figures: list[Figures]) -> None:
    table = Table()
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right")
    for one in figures:
        table.add_row(*(_cell(one, name) for name in HEADINGS))
    wide_console().print(table)
    for one in figures:
        if "pass_rates" in one:
            show([PassRate(**rate) for rate in one["pass_rates"]], f"{one['ads']:,} ads, {one['backend']}")
    print(json.dumps(figures))


def _cell(figures: Mapping[str, Any], name: str) -> str:
    value = figures[name]
    if name == "build_cpu_s":
        shown = f"{value / 60:,.1f}"
    elif name == "memory_bytes":
        shown = f"{value / figures['ads']:,.0f}"
    elif name == "ann_recall":
        shown = f"{value:.3f}"
    elif name.endswith("ready_s"):
        shown = f"{value:,.1f}"
    else:
        shown = f"{value:,.0f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
    guessed = figures.get("extrapolated") and name in (*BY_POWER, *LINEAR)
    return f"~{shown}" if guessed else shown


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
