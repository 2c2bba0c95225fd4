"""Sends loads one after the other and puts together what they found, with progress meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from loadtest.load import Load
from loadtest.result import Event, Phase, Result, Second, now, summarize, timeline, versions
from loadtest.samples import Samples, percentile
from loadtest.session import LOOK_S, Session
from loadtest.slo import Objective
from terminal import Advance, progress

SHOWN_EVERY_S = 1.0
MOST_LABEL = 20
"""Letters of a load's name on a terminal of 80, where the rest has to find room, too."""
Stop = Callable[[Samples], bool]
"""Looks at what has come since the last call and says whether to end a load before its time."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The load was ended by Ctrl-C, or by SIGTERM."""


@dataclass
class Measurement:
    """The phases so far, on one timeline."""

    session: Session
    started_s: float = field(default_factory=time.time)
    phases: list[Phase] = field(default_factory=list)
    seconds: list[Second] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    interrupted: bool = False
    """A load was ended by Ctrl-C; there is what came before."""

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Leave the block, not the command, on Ctrl-C."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self.interrupted = True

    def run(self, load: Load, stop: Stop | None = None) -> Phase:
        """Send one load and keep what it saw, as one phase.

        Raises:
            Interrupted: by Ctrl-C; what it saw by then is kept.
        """
        offset_s, samples, stopped_s = self._send(load, stop)
        phase = summarize(load, offset_s, samples, stopped_s)
        self.phases.append(phase)
        self._check_interrupt()
        return phase

    def run_on(self, title: str, loads: Sequence[Load]) -> None:
        """Send open loops without a pause between them, and keep what they saw, a phase each.

        Raises:
            Interrupted: by Ctrl-C; what they saw by then is kept.
        """
        seconds = sum(load.seconds for load in loads)
        steps = tuple((load.seconds, load.rate or 0.0) for load in loads)
        mean = sum(seconds * rate for seconds, rate in steps) / seconds
        offset_s, samples, stopped_s = self._send(Load(title, seconds, mean, loads[0].arrivals, steps=steps), None)
        begin_s, end_s = 0.0, stopped_s or seconds
        for load in loads:
            if begin_s >= end_s:
                break
            part = samples.between(begin_s, begin_s + load.seconds)
            lasted_s = min(load.seconds, end_s - begin_s)
            self.phases.append(summarize(load, offset_s + begin_s, part.shifted(begin_s), lasted_s))
            begin_s += load.seconds
        self._check_interrupt()

    def _check_interrupt(self) -> None:
        if self.session.interrupted:
            raise Interrupted

    def _send(self, load: Load, stop: Stop | None) -> tuple[float, Samples, float | None]:
        """Seconds at which the load began, what it saw from then, and when it was ended before its time."""
        label = load.name if len(load.name) <= MOST_LABEL else f"{load.name[: MOST_LABEL - 1]}…"
        with progress(label, round(load.seconds), "s", rate=False) as advance:
            shown = _Shown(load, advance, stop)
            started_s, samples = self.session.run(load, shown)
            shown.end(self.session.interrupted)
        offset_s = max(0.0, started_s - self.started_s)
        self.seconds += [
            second.model_copy(update={"at_s": second.at_s + round(offset_s)}) for second in timeline(samples)
        ]
        stopped_s = shown.stopped_s  # but workers go on until they hear of it
        if stopped_s and len(samples):
            stopped_s = max(stopped_s, float(samples.column("due_s").max()))
        return offset_s, samples, stopped_s

    def result(
        self,
        title: str,
        url: str,
        settings: dict[str, Any],
        service: dict[str, Any],
        objectives: Sequence[Objective] = (),
    ) -> Result:
        """Everything so far."""
        return Result(
            title=title,
            started=now(),
            url=url,
            settings=settings,
            versions=versions(),
            service=service,
            phases=self.phases,
            timeline=self.seconds,
            events=sorted(self.events, key=lambda event: event.at_s),
            verdicts=[one.judge(phase) for phase in self.phases for one in objectives],
            interrupted=self.interrupted,
        )


class _Shown:
    """Shows how a load goes, once a second, and ends it where told to."""

    def __init__(self, load: Load, advance: Advance, stop: Stop | None) -> None:
        self.stopped_s: float | None = None
        self._load = load
        self._advance = advance
        self._stop = stop
        self._passed_s, self._shown_s, self._whole_s = 0.0, 0.0, 0
        self._recent: list[Samples] = []
        self._errors = 0

    def __call__(self, passed_s: float, fresh: Samples) -> bool:
        """A `loadtest.session.Watch`."""
        self._passed_s = passed_s
        self._recent.append(fresh)
        self._errors += int((~fresh.ok).sum())
        if passed_s - self._shown_s >= SHOWN_EVERY_S:
            self._show(passed_s)
        if self._stop and self._stop(fresh):
            self.stopped_s = passed_s
            return False
        return True

    def end(self, interrupted: bool) -> None:
        """All seconds are over, or no more will come."""
        if interrupted:
            self.stopped_s = self._passed_s or LOOK_S
        else:
            self._advance(round(self._load.seconds) - self._whole_s)

    def _show(self, passed_s: float) -> None:
        interval_s, self._shown_s = passed_s - self._shown_s, passed_s
        whole_s = min(int(passed_s), round(self._load.seconds)) - self._whole_s
        self._whole_s += whole_s
        latency_ms = np.concatenate([samples.latency_ms for samples in self._recent])
        count = sum(map(len, self._recent))
        self._recent.clear()
        p50, p99 = percentile(latency_ms, 50), percentile(latency_ms, 99)
        latency = f"p50 {p50:.1f}, p99 {p99:.1f} ms" if p50 is not None else "no answers"
        rate = self._load.rate_at(passed_s)
        due = f"{rate:,.4g}/s due, " if rate else ""
        errors = f"{self._errors:,} error{'s' if self._errors != 1 else ''}"
        self._advance(whole_s, f"{due}{count / interval_s:,.0f}/s done, {latency}, {errors}")


def service_info(url: str) -> dict[str, Any]:
    """What `GET /info` says of release and settings, empty where it says nothing: other servers can be measured too."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/info", timeout=5, trust_env=False)
        found = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return {name: found[name] for name in ("release", "settings") if name in found} if isinstance(found, dict) else {}
