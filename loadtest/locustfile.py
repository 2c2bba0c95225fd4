"""Load on `POST /retrieve` for plain Locust: closed loop, or open loop with `--rate`.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080 --headless -u 32 -t 60s --queries queries.tsv
    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080 --headless -u 1 -t 60s --rate 500

The rows of type `stage` are the service's own timings, in microseconds, since Locust rounds to whole units and most
stages take less than a millisecond. They are not requests, so the row `Aggregated` leaves them out.
`hlm loadtest` runs this file in worker processes, to which it sends loads.
"""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

from locust import events, runners
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from artifacts.errors import HlmError
from loadtest.load import OBEYS, Load
from loadtest.traffic import Source, Traffic, parse_mix, read_filters
from loadtest.users import WALL_S, RetrieveUser, Work

__all__ = ["RetrieveUser"]

PLAIN = "plain Locust"
"""Name of the load without `hlm loadtest`, which sends others."""
_RUNS = itertools.count()
REPORT_S = 0.5
"""How often a worker of `hlm loadtest` says what it has seen."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """Add this load's own options to Locust's."""
    options = parser.add_argument_group("Options of POST /retrieve")
    add = options.add_argument
    add(
        "--queries",
        default="",
        env_var="HLM_QUERIES",
        metavar="FILE",
        help="Queries in turn: tab-separated with a column 'text', or one a line; .gz too. Default: a built-in dozen.",
    )
    add("--zipf", type=float, default=0.0, help="Popularity of the query at rank r: 1 / r^ZIPF. Default: in turn.")
    add("--new-share", type=float, default=0.0, help="Share of queries that were never asked before. Default: 0.")
    add("--lengths", default="", metavar="MIX", help="Share by number of words: 1=0.2,3=0.8. Default: as in the file.")
    add("--top-k", default="100", metavar="MIX", help="Most ads wanted: 100, or shares: 10=0.2,100=0.8. Default: 100.")
    add("--filters", default="", metavar="FILE", help='JSON list of {"share": 0.5, "filters": {…}}. Default: none.')
    add("--timeout-ms", type=int, default=1_000, help="Budget of each request. Default: 1000.")
    add("--seed", type=int, default=0, help="Of queries and arrivals. Default: 0.")
    add("--rate", type=float, default=None, help="Open loop: arrivals a second of each user. Default: closed loop.")
    add("--arrivals", choices=["poisson", "constant"], default="poisson", help="Of --rate. Default: poisson.")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: object) -> None:
    """Make what all users share; options that cannot be used end the run with one sentence."""
    if isinstance(environment.runner, runners.WorkerRunner):
        _obey(environment, environment.runner)
    RetrieveUser.work = _work(environment)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: object) -> None:
    """Do as the options of the master say, which its workers have by now, or those of the web page."""
    if RetrieveUser.work.load.name == PLAIN:
        RetrieveUser.work = _work(environment)


def _work(environment: Environment) -> Work:
    options: Any = environment.parsed_options
    # Of their own for each, lest all of Locust's workers ask the same.
    source = Source(getattr(environment.runner, "worker_index", 0), load=next(_RUNS))
    try:
        traffic = Traffic(
            queries=Path(options.queries) if options.queries else None,
            zipf=options.zipf,
            new_share=options.new_share,
            lengths=parse_mix(options.lengths) if options.lengths else {},
            top_k=parse_mix(options.top_k),
            filters=read_filters(Path(options.filters)) if options.filters else (),
            timeout_ms=options.timeout_ms,
            seed=options.seed,
        )
        return Work(Load(PLAIN, math.inf, options.rate, options.arrivals), traffic, source)
    except (HlmError, ValueError) as error:
        sys.exit(str(error))


def _obey(environment: Environment, worker: runners.WorkerRunner) -> None:
    """Take loads from `hlm loadtest` and report every request of theirs."""
    runners.WORKER_REPORT_INTERVAL = REPORT_S
    number = -1
    asked: set[str] = set()

    def take_load(msg: Any, **_: object) -> None:
        nonlocal number
        number = msg.data["number"]
        traffic = Traffic.model_validate(msg.data["traffic"])
        load = Load(**msg.data["load"] | {"steps": tuple(map(tuple, msg.data["load"]["steps"]))})
        RetrieveUser.work = Work(load, traffic, Source(msg.data["worker"], msg.data["workers"], number, asked))

    def report(data: dict[str, Any], **_: object) -> None:
        if number >= 0:
            work = RetrieveUser.work
            begun_s = work.begun_s and work.begun_s + WALL_S
            data["load"] = {"number": number, "begun_s": begun_s, "ended": work.ended, **work.recorder.take()}

    worker.register_message("load", take_load)
    worker.send_message(OBEYS)  # Locust itself says that a worker is ready before this file has been asked
    environment.events.report_to_master.add_listener(report)  # type: ignore[no-untyped-call]
