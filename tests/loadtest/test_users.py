"""Users of one process, driven by Locust in a process of its own, since gevent patches the whole of it."""

import base64
import json
import socket
import subprocess
import sys
from pathlib import Path

from loadtest.recorder import COLUMNS
from loadtest.samples import Samples

ROOT = Path(__file__).resolve().parents[2]

ONE_LOAD = """
import gevent.monkey
gevent.monkey.patch_all()
import base64, json, sys, time
from locust.env import Environment
from loadtest import users
from loadtest.load import Load
from loadtest.traffic import Traffic
users.MOST_IN_FLIGHT, users.SLACK_S = 5, 3.0  # so that all could be sent after 9 s
work = users.RetrieveUser.work = users.Work(Load("one", 1.0, 20.0, "constant"), Traffic(timeout_ms=1))
environment = Environment(user_classes=[users.RetrieveUser], host=sys.argv[1])
runner = environment.create_local_runner()
runner.start(1, spawn_rate=1)
with gevent.Timeout(60):
    while work.begun_s is None or time.perf_counter() < work.begun_s + 1.0:  # until all were due
        gevent.sleep(0.01)
    runner.quit()
    while not work.ended:
        gevent.sleep(0.01)
taken = work.recorder.take()
print(json.dumps(taken | {"rows": base64.b64encode(taken["rows"]).decode()}))
"""


def test_arrivals_that_could_not_be_sent_are_errors_and_not_left_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", ONE_LOAD, url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    taken = json.loads(done.stdout)
    samples = Samples.of([taken | {"rows": base64.b64decode(taken["rows"])}])
    assert len(samples) == 20
    assert samples.error_share == 1
    assert {name.split(":")[0] for name in samples.errors()} == {"no answer", "never sent"}
    unsent = samples.rows[:, COLUMNS.index("outcome")] == samples.outcomes.index(
        next(name for name in samples.outcomes if name.startswith("never sent"))
    )
    assert samples.column("late_s")[unsent].min() > 0
