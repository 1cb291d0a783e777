"""A real rsyslog over TLS, where the Debian packages rsyslog and rsyslog-gnutls are installed."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.demonstration.running_node import free_port
from tests.support.certificates import CertificatePair
from tests.support.quick_node import wait_for

#: the program is in sbin, which is not on the path of every account
RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin:/bin")
_GNUTLS = [*Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")]
#: why tests with it are skipped; None where it is there
MISSING = None if RSYSLOGD and _GNUTLS else "rsyslog or rsyslog-gnutls is not installed"


class RsyslogServer:
    """An rsyslog of its own on a free port; each message is one line of ``lines``."""

    def __init__(
        self, folder: Path, pair: CertificatePair, authority: Path, *, asks: bool = False
    ) -> None:
        self.port = free_port()
        self._folder, self._process = folder, None
        self.log = folder / "messages"
        mode = "x509/certvalid" if asks else "anon"
        (folder / "rsyslog.conf").write_text(
            f'global(workDirectory="{folder}" maxMessageSize="64k"\n'
            '  defaultNetstreamDriver="gtls" parser.escapeControlCharactersOnReceive="on"\n'
            f'  defaultNetstreamDriverCAFile="{authority}"\n'
            f'  defaultNetstreamDriverCertFile="{pair.certificate}"\n'
            f'  defaultNetstreamDriverKeyFile="{pair.key}")\n'
            'main_queue(queue.type="Direct")\n'
            f'module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1"\n'
            f'  streamDriver.authMode="{mode}")\n'
            f'input(type="imtcp" port="{self.port}" address="127.0.0.1")\n'
            'template(name="raw" type="string" string="%rawmsg%\\n")\n'
            f'action(type="omfile" file="{self.log}" template="raw" asyncWriting="off"\n'
            '  flushOnTXEnd="on")\n'
        )

    @property
    def lines(self) -> list[str]:
        """Messages that were written, each with its header."""
        return self.log.read_text("utf-8").splitlines() if self.log.exists() else []

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [RSYSLOGD, "-n", "-f", self._folder / "rsyslog.conf",
                 "-i", self._folder / "rsyslog.pid"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for(self._listens, 20, (self._folder / "output").read_text)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run."""
        self.start()
        try:
            yield
        finally:
            self.stop(signal.SIGKILL)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
