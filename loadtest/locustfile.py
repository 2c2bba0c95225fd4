"""Closed-loop load on `POST /retrieve`: each user sends its next query as soon as it has its answer.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080 --headless -u 32 -t 60s --queries queries.tsv

The rows of type `stage` are the service's own timings, in microseconds, since Locust rounds to whole units and most
stages take less than a millisecond. They are not requests, so the row `Aggregated` leaves them out.
"""

import gzip
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

BUILT_IN_QUERIES = (
    "cordless drill 18v",
    "led light bulbs",
    "outdoor patio furniture set",
    "stainless steel kitchen sink",
    "wireless mouse",
    "running shoes women",
    "4x8 plywood",
    "air conditioner window unit",
    "garden hose 50 ft",
    "usb c charger",
    "ceiling fan with remote",
    "toddler car seat",
)
SLACK_S = 5.0
"""How long after `timeout_ms` a user gives up waiting for the service's own refusal."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """Add this load's own options to Locust's."""
    options = parser.add_argument_group("Options of POST /retrieve")
    options.add_argument(
        "--queries",
        default="",
        env_var="HLM_QUERIES",
        metavar="FILE",
        help="Queries in turn: tab-separated with a column 'text', or one a line; .gz too. Default: a built-in dozen.",
    )
    options.add_argument("--top-k", type=int, default=100, help="Most ads wanted. Default: 100.")
    options.add_argument("--timeout-ms", type=int, default=1_000, help="Budget of each request. Default: 1000.")


def read_queries(path: Path) -> list[str]:
    """Queries of a file, without its header line where a column of it is called `text`."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    lines = [line for line in content.decode().splitlines() if line.strip()]
    header = lines[0].split("\t") if lines else []
    if "text" in header:
        column = header.index("text")
        lines = [line.split("\t")[column] for line in lines[1:]]
    if not lines:
        raise ValueError("it holds no query")
    return lines


@events.init.add_listener  # type: ignore[untyped-decorator]
def load_queries(environment: Environment, **_: object) -> None:
    """Read the queries once for all users; a file that cannot be read ends the run with one sentence."""
    path = environment.parsed_options.queries if environment.parsed_options else ""
    try:
        queries = read_queries(Path(path)) if path else BUILT_IN_QUERIES
    except (OSError, ValueError, IndexError) as error:
        sys.exit(f"{path}: cannot be read as queries ({error})")
    RetrieveUser.queries = itertools.cycle(queries)


class RetrieveUser(FastHttpUser):
    """A caller that asks one query after another; all users take turns on one list."""

    queries: ClassVar[Iterator[str]]

    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        self.top_k: int = options.top_k
        self.timeout_ms: int = options.timeout_ms
        self.network_timeout = self.timeout_ms / 1e3 + SLACK_S
        super().__init__(environment)

    @task
    def retrieve(self) -> None:
        """Ask one query; anything but a well-formed 200 is a failure."""
        body = {"query": next(self.queries), "top_k": self.top_k, "timeout_ms": self.timeout_ms}
        with self.client.post("/retrieve", json=body, catch_response=True) as response:
            if response.status_code == 0:
                return  # no answer at all: Locust reports the error of the connection
            try:
                answer = json.loads(response.content or b"")
                if response.status_code == 200:
                    check_answer(answer, self.top_k)
                    self._log_stages(answer["timings_ms"])
                else:
                    response.failure(f"{response.status_code} {answer['type']}")
            except (json.JSONDecodeError, UnicodeDecodeError):  # whose messages differ from answer to answer
                response.failure(f"{response.status_code}, but not JSON")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                response.failure(f"{response.status_code}, but malformed: {type(error).__name__}: {error}")

    def _log_stages(self, timings_ms: dict[str, float]) -> None:
        # Logged to the entry itself: a request event would count each stage as a request in `Aggregated`.
        for stage, duration_ms in timings_ms.items():
            self.environment.stats.get(f"{stage} (µs)", "stage").log(round(duration_ms * 1e3), 0)


def check_answer(answer: dict[str, Any], top_k: int) -> None:
    """Raise unless the ads are at most `top_k`, each once, in falling score.

    Raises:
        ValueError: they are not.
        KeyError, TypeError: this is no answer to `POST /retrieve`.
    """
    ads = answer["ads"]
    scores = [ad["score"] for ad in ads]
    if len(ads) > top_k:
        raise ValueError("more ads than asked for")
    if len({ad["ad_id"] for ad in ads}) < len(ads):
        raise ValueError("an ad comes twice")
    if any(score < following for score, following in itertools.pairwise(scores)):
        raise ValueError("scores do not fall")
