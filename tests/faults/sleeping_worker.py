"""A worker of one machine with an engine that sleeps, in place of `rebrain-node worker`.

usage: sleeping_worker.py CONFIG SECONDS [--ahead-s SECONDS] [--kills] [--silent-s SECONDS]

Everything is the node's own but the synthesis: it writes a line with the name of its machine into
``begun.txt`` of the shared folder, sleeps, and puts small objects into the outbox. With --ahead-s
the clock of its machine is ahead. With --kills it ends itself with SIGKILL in place of sleeping.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

from rebrain_node.app import serve
from rebrain_node.app.compose import read_limits
from rebrain_node.domain.job import Job
from rebrain_node.settings import load_settings
from rebrain_node.worker.work import Work
from tests.support.store_cases import derived_set

parser = argparse.ArgumentParser()
parser.add_argument("config", type=Path)
parser.add_argument("seconds", type=float)
parser.add_argument("--ahead-s", type=float, default=0.0)
parser.add_argument("--kills", action="store_true")
parser.add_argument("--silent-s", type=float)  # by the supervisor, as for every process
arguments = parser.parse_args()
settings = load_settings(arguments.config)
begun = settings.storage.folder / "begun.txt"

if arguments.ahead_s:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + arguments.ahead_s
    time.time_ns = lambda: real_ns() + int(arguments.ahead_s * 1e9)


class SleepingWork(Work):
    """Work whose synthesis takes a given time and no processor."""

    def prepare(self):
        """Load nothing."""

    def _make(self, record):
        job = Job(
            study_instance_uid=record.study_instance_uid,
            series_instance_uid=record.series_instance_uid,
            revision=record.revision,
        )
        with begun.open("a") as stream:
            stream.write(f"{settings.machine}\n")
        if arguments.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(arguments.seconds)
        self.outbox.put(derived_set(job), self.destinations, job)


def sleeping_work(settings, state, name, check):
    """Stand for `serve._work`, which loads the bundle."""
    configuration = SimpleNamespace(limits=read_limits(settings))
    work = SleepingWork(
        ledger=state.ledger,
        outbox=state.outbox,
        ports=lambda: None,
        configuration=lambda: configuration,
        destinations=(),
    )
    return work, SimpleNamespace(take_limits=lambda _: [])


serve.ModelCheck = SimpleNamespace(begin=lambda _: None)
serve._work = sleeping_work
options = serve.ChildOptions(config=arguments.config, silent_s=arguments.silent_s)
serve.run_worker(settings, 1, options, delivers=False)
