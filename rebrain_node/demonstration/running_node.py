"""A separate node for the demonstration: `serve` on a free port of loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rebrain_node.errors import RebrainError
from rebrain_node.settings import DestinationSettings, Settings, load_settings

AE_TITLE: Final = "REBRAIN"
#: short, because the demonstration's sender never pauses
QUIET_PERIOD_S: Final = 2.0
_READY_S: Final = 60.0
_STOP_S: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class RunningNode:
    """A node that is ready."""

    settings: Settings
    address: DestinationSettings  #: where to send to


@contextmanager
def running_node(folder: Path, pacs_ae_title: str, pacs_port: int) -> Iterator[RunningNode]:
    """Run a node with its state in ``folder`` and one PACS as destination; stop it at the end.

    Raises
    ------
    RebrainError
        It does not become ready; the text holds its last line of log.
    """
    port = free_port()
    config, log = folder / "node.toml", folder / "node.log"
    config.write_text(_config(folder / "state", port, pacs_ae_title, pacs_port))
    command = (sys.executable, "-P", "-m", "rebrain_node.cli", "serve", "--config", str(config))
    with log.open("wb") as stream:
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stream)  # noqa: S603 - our own program
    try:
        _await_ready(node, log)
        address = DestinationSettings(
            name="node", ae_title=AE_TITLE, host="127.0.0.1", port=port, timeout_s=60.0
        )
        yield RunningNode(settings=load_settings(config), address=address)
    finally:
        node.terminate()
        try:
            node.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def _await_ready(node: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while '"event": "ready"' not in log.read_text():
        if node.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text().splitlines() or ["it logged nothing"]
            raise RebrainError(f"the node did not become ready within {_READY_S:g} s: {lines[-1]}")
        time.sleep(0.05)


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _config(folder: Path, port: int, pacs_ae_title: str, pacs_port: int) -> str:
    """Settings as TOML; a JSON string is a TOML string."""
    return f"""
[receiver]
ae_title = "{AE_TITLE}"
port = {port}
[[receiver.peers]]
ae_title = {json.dumps(pacs_ae_title)}
[completeness]
quiet_period_s = {QUIET_PERIOD_S}
[storage]
folder = {json.dumps(str(folder.absolute()))}
soft_mark_bytes = 0
hard_mark_bytes = 0
[[destinations]]
name = "pacs"
ae_title = {json.dumps(pacs_ae_title)}
host = "127.0.0.1"
port = {pacs_port}
"""
