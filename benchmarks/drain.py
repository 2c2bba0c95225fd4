"""Restarts under load: two replicas behind nginx, ended by SIGTERM and started again in turn, and no request may fail.

What it measures: every request of a constant open-loop load (`benchmarks/open_loop.py`) that is not answered 200 while
replicas are restarted, and the p99 of the stretches with a restart against equal stretches without, taken in turns.
How: nginx runs with deploy/nginx.conf. With `--balancer readiness` something beside it polls `/health/ready` and flags
the replicas that are not ready, as an orchestrator would; with `--balancer passive` nothing does, and nginx finds out
by asking a replica that has gone, and asks the other one then. Each replica
has a core of its own; the rate is a share of what one of them can do alone, since one has to carry all of it while the
other is away. The last part has neither nginx nor a second replica: clients that leave when readiness says no, or that
keep coming until connections are refused, of which all that were accepted must be answered.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import request_bytes
from benchmarks.load_process import LoadProcess, load_process
from benchmarks.nginx import Nginx, NginxMissingError, find_nginx, run_nginx
from benchmarks.open_load import OpenLoad
from benchmarks.queries import read_queries
from benchmarks.replica import Replica
from benchmarks.servers import add_arguments
from benchmarks.stretches import CELL_HEADINGS, Stretches
from benchmarks.tables import wide_console

TIMEOUT_MS = 10_000
"""The most there is: a request that fails here was lost, not late."""
LEAD_S = 1.0
"""How long load runs before a replica is ended."""
POLL_S = 0.1
"""How often readiness is asked; it has the grace time to be noticed."""
CAPACITY_CLIENTS = 16


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one a replica")
    nginx_path = find_nginx(args.nginx)
    requests = [request_bytes(query, args.top_k, TIMEOUT_MS) for query in read_queries(args.queries)]
    with ExitStack() as stack:
        replicas = [stack.enter_context(_replica(args, core)) for core in cores[:2]]
        load = stack.enter_context(load_process(requests, cores[2:] or cores))
        rate = args.rate or args.load * _capacity(load, replicas[0])
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hlm-drain-")))
        nginx = stack.enter_context(run_nginx(nginx_path, directory, (replicas[0].port, replicas[1].port)))
        if args.balancer == "readiness":
            stack.enter_context(_watched(nginx, replicas))
        _together(load, nginx.port, rate, 2.0, seed=0)  # warms all of it up
        quiet, restarted = _restart_in_turn(load, nginx.port, replicas, rate, args)
        alone = {name: _alone(load, replicas[0], rate, args, graces) for name, graces in _CLIENTS.items()}
    _report(quiet, restarted, alone, rate, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--nginx", help="path of nginx; default: the one on PATH")
    parser.add_argument("--balancer", choices=("readiness", "passive"), default="readiness")
    parser.add_argument("--restarts", type=int, default=6, help="of the two replicas together")
    parser.add_argument("--rate", type=float, help="requests a second; default: --load of one replica's capacity")
    parser.add_argument("--load", type=float, default=0.6, help="share of one replica's capacity")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a stretch; a restart has to fit in")
    parser.add_argument("--grace-ms", type=int, default=2_000, help="server.drain_grace_ms of the replicas")
    return parser.parse_args()


@contextmanager
def _replica(args: argparse.Namespace, core: int) -> Iterator[Replica]:
    options = ["--name", "drain", "--encoder", str(args.encoder), "--index", str(args.index)]
    replica = Replica(options, {"HLM_SERVER__DRAIN_GRACE_MS": str(args.grace_ms)}, {core})
    try:
        replica.start()
        replica.wait_until_ready()
        yield replica
    finally:
        replica.kill()


def _capacity(load: LoadProcess, replica: Replica) -> float:
    """Requests a second that one replica answers to clients that wait for their answers."""
    load.closed_loop(replica.port, clients=CAPACITY_CLIENTS, seconds=1.0)
    return load.closed_loop(replica.port, clients=CAPACITY_CLIENTS, seconds=3.0).queries_per_second


@contextmanager
def _watched(nginx: Nginx, replicas: Sequence[Replica]) -> Iterator[None]:
    """Flag the replicas that are not ready."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            for number, replica in enumerate(replicas, start=1):
                nginx.mark(number, away=not replica.ready())

    thread = threading.Thread(target=watch, name="readiness")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _together(load: LoadProcess, port: int, rate: float, seconds: float, seed: int) -> OpenLoad:
    return load.begin(port, rate=rate, seconds=seconds, seed=seed).result().load


def _restart_in_turn(
    load: LoadProcess, port: int, replicas: Sequence[Replica], rate: float, args: argparse.Namespace
) -> tuple[Stretches, Stretches]:
    quiet, restarted = Stretches(), Stretches()
    for number in range(args.restarts):
        quiet.loads.append(_together(load, port, rate, args.seconds, seed=2 * number + 1))
        running = load.begin(port, rate=rate, seconds=args.seconds, seed=2 * number + 2)
        time.sleep(LEAD_S)
        _restart(replicas[number % len(replicas)])
        if running.done():
            raise BenchmarkError("the load ended before the replica was back: give more --seconds")
        restarted.loads.append(running.result().load)
    return quiet, restarted


def _restart(replica: Replica) -> None:
    _stop(replica)
    replica.start()
    replica.wait_until_ready()


def _stop(replica: Replica) -> None:
    replica.begin_to_stop()
    if exit_code := replica.wait_until_gone():
        raise BenchmarkError(f"a replica ended with exit code {exit_code} after SIGTERM")


_CLIENTS = {"leave when not ready": 0.5, "come until refused": 1.5}
"""How long clients go on after SIGTERM, in grace times."""


def _alone(load: LoadProcess, replica: Replica, rate: float, args: argparse.Namespace, graces: float) -> Stretches:
    """One replica that is ended under load, without anything in front of it; then started again.

    Half the load, since in the grace time every request needs a connection of its own.
    """
    running = load.begin(replica.port, rate=rate / 2, seconds=LEAD_S + graces * args.grace_ms / 1e3, seed=0)
    time.sleep(LEAD_S)
    _stop(replica)
    found = running.result().load
    replica.start()
    replica.wait_until_ready()
    return Stretches([found])


def _report(
    quiet: Stretches, restarted: Stretches, alone: dict[str, Stretches], rate: float, args: argparse.Namespace
) -> None:
    table = Table("", title=f"{rate:,.0f} requests a second, {args.restarts} restarts, balancer: {args.balancer}")
    for heading in CELL_HEADINGS:
        table.add_column(heading, justify="right")
    table.add_row("without a restart", *quiet.cells())
    table.add_row("with a restart", *restarted.cells())
    for name, stretches in alone.items():
        table.add_row(f"one replica, clients {name}", *stretches.cells())
    wide_console().print(table)
    figures = {
        "restarts": args.restarts,
        "requests": quiet.requests + restarted.requests,
        "failed": quiet.failed + restarted.failed,
        "p99_ratio": round(restarted.latency_ms(99) / quiet.latency_ms(99), 3),
        "lost_alone": sum(stretches.lost for stretches in alone.values()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except NginxMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except HlmError as error:
        sys.exit(f"error: {error}")
