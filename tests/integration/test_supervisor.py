"""The supervisor: children are watched, restarted, stopped, and never outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

CHILD = """
import os, sys
from pathlib import Path
from rebrain_node.supervisor import ParentPipe
with Path(sys.argv[1]).open("a") as stream:
    stream.write(f"{os.getpid()}\\n")
pipe = ParentPipe.watch()
pipe.report_ready()
pipe.stop.wait()
"""

PARENT = """
import sys
from rebrain_node.supervisor import Role, supervise
roles = [Role(name=f"child-{n}", command=(sys.executable, "-c", sys.argv[1], f"{sys.argv[2]}{n}"))
         for n in (1, 2)]
sys.exit(supervise(roles))
"""


def start(tmp_path, child=CHILD):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, child, tmp_path / "pids-"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pids(tmp_path, number):
    path = tmp_path / f"pids-{number}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for(condition, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_clean_stop_ends_all_children_with_exit_code_0(tmp_path):
    node = start(tmp_path)
    assert wait_for(lambda: pids(tmp_path, 1) and pids(tmp_path, 2))
    time.sleep(0.5)
    node.send_signal(signal.SIGTERM)
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 0
    assert "ready" in output
    assert "stopped" in output
    assert all(gone(pid) for number in (1, 2) for pid in pids(tmp_path, number))


def test_a_killed_child_is_started_again_and_the_other_is_left_alone(tmp_path):
    node = start(tmp_path)
    try:
        assert wait_for(lambda: pids(tmp_path, 1) and pids(tmp_path, 2))
        os.kill(pids(tmp_path, 1)[0], signal.SIGKILL)
        assert wait_for(lambda: len(pids(tmp_path, 1)) == 2)
        assert len(pids(tmp_path, 2)) == 1
    finally:
        node.terminate()
        node.communicate(timeout=60)


def test_children_end_when_the_supervisor_is_killed(tmp_path):
    node = start(tmp_path)
    assert wait_for(lambda: pids(tmp_path, 1) and pids(tmp_path, 2))
    time.sleep(0.5)
    node.kill()
    node.communicate(timeout=60)
    assert wait_for(lambda: all(gone(pid) for n in (1, 2) for pid in pids(tmp_path, n)))


def test_unfit_settings_in_a_child_end_the_node_with_its_code(tmp_path):
    node = start(tmp_path, child="import sys; sys.exit(2)")
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 2, output
