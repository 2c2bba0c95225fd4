"""Scenarios: loads without a pause between them, and what is done to the service meanwhile, in a YAML file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.errors import LoadTestError
from loadtest.load import Arrivals, Load
from loadtest.traffic import Traffic

Positive = Annotated[float, Field(gt=0)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Model):
    """A rate for some time."""

    name: str
    rate: Positive
    seconds: Positive


class Swap(_Model):
    """Another release, through the admin listener; directories are those of the machine that serves."""

    kind: Literal["swap"]
    name: str
    encoder: str
    index: str
    record: str | None = None
    admin_url: str = "http://127.0.0.1:8081"


class AdUpdates(_Model):
    """Bids of ads that queries find are set anew, so many a second, through the admin listener."""

    kind: Literal["ad_updates"]
    rate: Positive
    seconds: Positive
    admin_url: str = "http://127.0.0.1:8081"


class Kill(_Model):
    """A process of this machine is killed: a replica behind a load balancer."""

    kind: Literal["kill"]
    pid: int | None = Field(None, gt=1)
    pid_file: Path | None = None
    signal: Literal["KILL", "TERM", "STOP", "CONT"] = "KILL"


class Run(_Model):
    """Any other command."""

    kind: Literal["run"]
    command: list[str] = Field(min_length=1)


class SlowClients(_Model):
    """Connections whose requests come a byte at a time and are never done."""

    kind: Literal["slow_clients"]
    clients: int = Field(ge=1, le=10_000)
    seconds: Positive


class Disconnects(_Model):
    """Requests whose clients go away 1 ms after they asked, so many a second."""

    kind: Literal["disconnects"]
    rate: Positive
    seconds: Positive


class Planned(_Model):
    """Something that is done at a time."""

    at_s: float = Field(ge=0)
    name: str
    do: Annotated[Swap | AdUpdates | Kill | Run | SlowClients | Disconnects, Field(discriminator="kind")]


class Scenario(_Model):
    """What a file says."""

    title: str
    traffic: Traffic = Traffic()
    arrivals: Arrivals = "poisson"
    loads: list[Step] = Field(min_length=1)
    events: list[Planned] = []

    def all_loads(self) -> list[Load]:
        """In their order."""
        return [Load(step.name, step.seconds, step.rate, self.arrivals) for step in self.loads]


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file; its query file lies relative to it.

    Raises:
        LoadTestError: it is none.
    """
    try:
        document: Any = yaml.safe_load(path.read_text())
        scenario = Scenario.model_validate(document)
    except OSError as error:
        raise LoadTestError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LoadTestError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise LoadTestError(f"{path}: {where}: {first['msg']}") from error
    for planned in scenario.events:
        if isinstance(planned.do, Kill) and (planned.do.pid is None) == (planned.do.pid_file is None):
            raise LoadTestError(f"{path}: {planned.name}: expected either pid or pid_file")
    if not scenario.traffic.queries:
        return scenario
    queries = path.parent.resolve() / scenario.traffic.queries
    return scenario.model_copy(update={"traffic": scenario.traffic.model_copy(update={"queries": queries})})
