"""Where no node's state is: reading commands make none, and `serve` replaces none that is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state, require_database
from rebrain_node.app.health import processes_check
from rebrain_node.app.presence import (
    node_processes,
    one_node,
    running_node,
    write_processes,
)
from rebrain_node.blobs import inbox_blobs
from rebrain_node.cli import program
from rebrain_node.errors import NoStateError, SettingsError
from rebrain_node.settings import Settings, Storage
from rebrain_node.supervisor import ProcessState

ROOT = Path(__file__).parents[2]
READING = (
    ("status",),
    ("queue", "list"),
    ("queue", "show", "1.2.3"),
    ("queue", "dispute", "1.2.3"),
    ("audit", "list"),
    ("audit", "show", "1"),
    ("audit", "verify"),
    ("audit", "report", "--out", os.devnull),
    ("outbox", "list"),
    ("outbox", "show", "1"),
    ("outbox", "retry", "1", "--reason", "test"),
    ("storage", "show"),
    ("storage", "purge", "--dry-run"),
    ("storage", "fsck"),
    ("recall", "--series", "1.2.3"),
    ("peers", "unknown"),
)


def settings_of(folder: Path) -> Settings:
    return Settings(storage=Storage(folder=folder, soft_mark_bytes=0, hard_mark_bytes=0))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text(f'[storage]\nfolder = "{tmp_path}/state"\nsoft_mark_bytes = 0\n')
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def absent(folder: Path) -> str:
    return "there is no node's state"


def empty_folder(folder: Path) -> str:
    folder.mkdir()
    return "missing or empty"


def empty_file(folder: Path) -> str:
    folder.mkdir()
    (folder / "node.sqlite").touch()
    return "missing or empty"


def text_file(folder: Path) -> str:
    folder.mkdir()
    (folder / "node.sqlite").write_text("the diary of another program\n" * 40)
    return "is no SQLite database"


def foreign(folder: Path) -> str:
    folder.mkdir()
    connection = sqlite3.connect(folder / "node.sqlite")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE patient (name TEXT)")
    connection.close()
    return "another program's database"


@pytest.mark.parametrize("damage", [absent, empty_folder, empty_file, text_file, foreign])
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_reading_command_makes_no_state_and_names_the_setting(tmp_path, config, command, damage):
    sentence = damage(tmp_path / "state")
    before = contents(tmp_path)
    result = CliRunner().invoke(program, [*command, "--config", str(config)])
    assert isinstance(result.exception, SettingsError)
    assert sentence in str(result.exception)
    assert "storage.folder" in str(result.exception)
    assert contents(tmp_path) == before


def test_the_absence_of_state_is_one_line_and_exit_code_2(tmp_path, config):
    done = subprocess.run(
        [sys.executable, "-m", "rebrain_node.cli", "status", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "rebrain-node serve" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", [text_file, foreign])
def test_a_node_does_not_start_on_another_programs_database(tmp_path, damage):
    sentence = damage(tmp_path / "state")
    before = contents(tmp_path)
    with pytest.raises(SettingsError, match=sentence), open_state(settings_of(tmp_path / "state")):
        pass
    assert contents(tmp_path) == before


@pytest.mark.parametrize("emptied", [False, True])
def test_a_node_whose_database_is_lost_under_received_bytes_does_not_start(tmp_path, emptied):
    folder = tmp_path / "state"
    with open_state(settings_of(folder)):
        blobs = inbox_blobs(folder / "inbox")
        blobs.prepare()
        blobs.put(b"an instance")
    (folder / "node.sqlite").unlink()
    if emptied:
        (folder / "node.sqlite").touch()
    before = contents(folder)
    with (
        pytest.raises(NoStateError, match="rebrain-node storage fsck"),
        open_state(settings_of(folder)),
    ):
        pass
    assert contents(folder) == before


def test_a_database_that_vanishes_or_is_replaced_while_the_node_runs_is_noticed(tmp_path):
    folder = tmp_path / "state"
    check = require_database(settings_of(folder))
    check()  # before the first start there is none
    with open_state(settings_of(folder)):
        check()
        (folder / "node.sqlite").rename(folder / "away")
        with pytest.raises(NoStateError, match="has vanished"):
            check()
        (folder / "node.sqlite").write_bytes((folder / "away").read_bytes())
        with pytest.raises(NoStateError, match="was replaced"):
            check()


def test_a_second_node_in_one_folder_is_refused_by_the_process_id_of_the_first(tmp_path):
    with one_node(tmp_path):
        assert running_node(tmp_path) == os.getpid()
        with (
            pytest.raises(SettingsError, match=f"process {os.getpid()} .*storage.folder"),
            one_node(tmp_path),
        ):
            pass
    assert running_node(tmp_path) is None
    with one_node(tmp_path):
        pass


def test_the_lock_is_held_while_a_process_of_the_node_is_left(tmp_path):
    with one_node(tmp_path) as lock:
        left = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    assert running_node(tmp_path) == os.getpid()
    left.kill()
    left.wait()
    assert running_node(tmp_path) is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [("ready", False), ("starting", False), ("no answer", True), ("ended", True)],
)
def test_a_process_that_does_not_answer_needs_help(tmp_path, state, expected):
    process = ProcessState(role="receiver", state=state, pid=1, silent_s=0.0, restarts=0)
    with one_node(tmp_path):
        write_processes(tmp_path, [process])
        node = node_processes(tmp_path)
    assert node["processes"][0]["role"] == "receiver"
    assert processes_check(node).fit is not expected
    assert not node_processes(tmp_path)["running"]


def test_fsck_lists_with_exit_code_1_and_repairs_only_while_no_node_runs(tmp_path, config):
    folder = tmp_path / "state"
    with open_state(settings_of(folder)):
        (folder / "outbox" / ("0" * 64)).write_bytes(b"unknown")

    def fsck(*options: str):
        command = ["storage", "fsck", *options, "--json", "--config", str(config)]
        return CliRunner().invoke(program, command)

    listed = fsck()
    assert listed.exit_code == 1
    assert [each["kind"] for each in json.loads(listed.stdout)["differences"]] == ["unknown"]
    with one_node(folder):
        assert json.loads(fsck().stdout)["node"] == os.getpid()
        assert isinstance(fsck("--repair").exception, SettingsError)
    assert fsck("--repair").exit_code == 0
    assert (folder / "lost-found/outbox" / ("0" * 64)).read_bytes() == b"unknown"
    assert fsck().exit_code == 0
