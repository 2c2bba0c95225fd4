"""What was measured, a line a run, so that an interrupted comparison goes on where it stopped."""

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from benchmarks.errors import BenchmarkError


class Run(BaseModel):
    """One server, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    peer: str
    version: str
    settings: str
    seat: str
    round: int
    seconds: float
    """Of each measurement."""
    machine: str
    measured_at: AwareDatetime
    figures: dict[str, float]
    checks: dict[str, bool]


def read_runs(path: Path) -> list[Run]:
    """Those in a file, in their order.

    Raises:
        BenchmarkError: it holds something else.
    """
    try:
        return [Run.model_validate_json(line) for line in path.read_text().splitlines()]
    except ValidationError as error:
        raise BenchmarkError(f"{path}: not the results of a comparison; give --results another file") from error


class Results:
    """The runs of one comparison.

    Args:
        path: file of JSON lines to go on with, or None to keep nothing.
        seconds: of each measurement.
        machine: this one.

    Raises:
        BenchmarkError: the file's runs cannot be compared with new ones.
    """

    def __init__(self, path: Path | None, seconds: float, machine: str) -> None:
        self._path = path
        self.runs = read_runs(path) if path and path.exists() else []
        for run in self.runs:
            if (run.seconds, run.machine) != (seconds, machine):
                found = f"{run.seconds:g} s on {run.machine}"
                raise BenchmarkError(f"{path}: has runs of {found}, not of {seconds:g} s on {machine}; move it away")

    def add(self, run: Run) -> None:
        """Keep it, also on disk."""
        self.runs.append(run)
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(run.model_dump_json() + "\n")

    def find(self, peer: str, seat: str, number: int) -> Run | None:
        """The run of a peer in a round, if it is there."""
        return next((run for run in self.of_round(seat, number) if run.peer == peer), None)

    def of_round(self, seat: str, number: int) -> list[Run]:
        """Those of one round in one seat."""
        return [run for run in self.runs if (run.seat, run.round) == (seat, number)]
