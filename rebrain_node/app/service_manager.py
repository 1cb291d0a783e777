"""Says to systemd that the node is ready, what it does, and that its supervisor lives.

The protocol is that of sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names. Where the
variable is absent nothing is sent. A node whose supervisor hangs sends no sign of life, and systemd
starts it again (``WatchdogSec=`` of deploy/systemd/rebrain-node.service).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from rebrain_node.supervisor import ProcessState


class ServiceManager:
    """The service manager that started this process, if one did."""

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._ready = False

    def report(self, states: Sequence[ProcessState]) -> None:
        """Send a sign of life and what the processes do; ``READY=1`` once all have started."""
        lines = [
            "WATCHDOG=1",
            "STATUS=" + ", ".join(f"{each.role} {each.state}" for each in states),
        ]
        if not self._ready and all(each.state == "ready" for each in states):
            self._ready = True
            lines.append("READY=1")
        if self._address:
            with (
                contextlib.suppress(OSError),  # a busy service manager must not end the node
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
            ):
                sender.sendto("\n".join(lines).encode(), self._address)
