"""A worker process for the tests of durable work: real DBOS, work that only writes lines.

usage: durable_child.py FOLDER SLOT SECONDS [die|fail|slow|report ...]

It ends LINGER_S after the lines hold all words of UNTIL: joined by " & ", named as often as they
must have been said.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from rebrain_node.worker.workflow import launch, progress_url

FOLDER, SLOT, SECONDS, *BEHAVIOUR = sys.argv[1:]
#: a series that is accepted again is new work
ACCEPTED_AT = datetime.fromtimestamp(float(os.environ.get("ACCEPTED_AT_S", "0")), UTC)
LINES = Path(FOLDER) / "lines"


def say(*words: object) -> None:
    with LINES.open("a") as stream:
        stream.write(" ".join(map(str, words)) + "\n")


class Lines:
    """Stands for ``Work``: says what it is asked and behaves as told."""

    def synthesise(self, series, revision, attempt):
        say("synthesise", series, revision, attempt)
        if "die" in BEHAVIOUR:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in BEHAVIOUR:
            time.sleep(60)
        return "again" if "fail" in BEHAVIOUR and attempt < 3 else "done"


executor_id = f"worker-{SLOT}:{uuid.uuid4().hex}"
durable = launch(Lines(), progress_url(Path(FOLDER), None), executor_id)
durable.take_over(lambda: [executor_id])  # no other process lives
for series in os.environ.get("SERIES", "").split():
    durable.start_synthesis(series, 1, ACCEPTED_AT)
end = time.monotonic() + float(SECONDS)
until = os.environ["UNTIL"].split(" & ")


def said() -> bool:
    text = LINES.read_text() if LINES.exists() else ""
    return until != [""] and all(text.count(words) >= until.count(words) for words in until)


while time.monotonic() < end and not said():
    time.sleep(0.05)
time.sleep(float(os.environ["LINGER_S"]))
if "report" in BEHAVIOUR:
    say("given-up", durable.has_given_up("7", 1, ACCEPTED_AT))
durable.close()
say("closed")
sys.stdout.flush()
os._exit(0)
