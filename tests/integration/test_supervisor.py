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


ARGUMENTS_CHILD = CHILD.replace(
    "pipe = ParentPipe.watch()",
    'Path(sys.argv[1] + ".arguments").write_text(" ".join(sys.argv[2:]))\n'
    "pipe = ParentPipe.watch()",
)


def test_a_child_that_is_stopped_is_killed_and_replaced_within_15_seconds(tmp_path):
    node = start(tmp_path, child=ARGUMENTS_CHILD)
    try:
        assert wait_for(lambda: pids(tmp_path, 1) and pids(tmp_path, 2))
        time.sleep(1.5)
        os.kill(pids(tmp_path, 1)[0], signal.SIGSTOP)
        begun = time.monotonic()
        assert wait_for(lambda: gone(pids(tmp_path, 1)[0]), timeout_s=15.0)
        assert time.monotonic() - begun > 8.0  # a short pause of the machine is no silence
        assert wait_for(lambda: len(pids(tmp_path, 1)) == 2)
        arguments = tmp_path / "pids-1.arguments"
        assert wait_for(lambda: arguments.read_text().startswith("--silent-s 1"))
        assert len(pids(tmp_path, 2)) == 1
    finally:
        node.terminate()
        output, _ = node.communicate(timeout=60)
    assert "no answer" in output


HUNG_UP_CHILD = CHILD.replace(
    "pipe.report_ready()",
    "pipe.at_reload(lambda: print('hung up', file=sys.stderr, flush=True))\npipe.report_ready()",
)


def test_sighup_is_passed_on_to_the_children_and_ends_nobody(tmp_path):
    node = start(tmp_path, child=HUNG_UP_CHILD)
    try:
        assert wait_for(lambda: len(pids(tmp_path, 1)) == len(pids(tmp_path, 2)) == 1)
        said = iter(node.stdout.readline, "")
        assert any("ready" in line for line in said)
        node.send_signal(signal.SIGHUP)
        assert [next(said).strip() for _ in range(2)] == ["hung up", "hung up"]
    finally:
        node.terminate()
    node.communicate(timeout=60)
    assert node.returncode == 0
    assert len(pids(tmp_path, 1)) == len(pids(tmp_path, 2)) == 1


FAILING_CHILD = CHILD.replace(
    "pipe.report_ready()", "pipe.report_ready()\npipe.works = lambda: False"
)


def test_a_child_whose_work_has_ended_gives_no_sign_of_life(tmp_path):
    node = start(tmp_path, child=FAILING_CHILD)
    try:
        assert wait_for(lambda: len(pids(tmp_path, 1)) == 2)
    finally:
        node.terminate()
        node.communicate(timeout=60)


CHECKING_PARENT = """
import sys
from rebrain_node.supervisor import Role, supervise
def check():
    raise SystemExit(7)
supervise([Role(name="child-1", command=(sys.executable, "-c", sys.argv[1], f"{sys.argv[2]}1"))],
          check=check)
"""


def test_a_check_that_fails_ends_the_children_and_the_supervisor(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CHECKING_PARENT, CHILD, tmp_path / "pids-"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert all(gone(pid) for pid in pids(tmp_path, 1))
