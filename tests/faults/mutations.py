"""Mutated PDUs and data sets against a receiver of our own.

Run: ``python -m tests.faults.mutations [PDUS] [DATA_SETS] [SEED]`` (2000, 20000 and 1 by default).
Streams and data sets are made from valid ones and the seed while this runs, none is kept. The
receiver runs in a process of its own, and a C-ECHO a fifth of a second asks whether it answers.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rebrain_node.domain.statuses import STATUSES
from rebrain_node.network.messages import C_ECHO
from tests.faults.receiving import receiving
from tests.support.data_sets import ct, encode
from tests.support.dicom_peers import associate_request, store_request

RELEASE = struct.pack(">BxIxxxx", 5, 4)
DOCUMENTED = {each.status for each in STATUSES.values()} | {0x0000}
_PATIENCE_S = 60.0


@dataclass
class Result:
    """What came of it."""

    answers: Counter[str] = field(default_factory=Counter)
    echo_s: list[float] = field(default_factory=list)
    alive: bool = False
    peak_bytes: int = 0  #: largest resident memory of the receiver

    @property
    def undocumented(self) -> list[str]:
        """Answers that docs/receiving.md does not list."""
        known = {f"{status:04X}" for status in DOCUMENTED} | {"A-ABORT", "A-RELEASE-RP"}
        return sorted(set(self.answers) - known)


def mutated(valid: bytes, choice: random.Random) -> bytes:
    """Change bytes, leave some out, repeat some, or cut the end."""
    content = bytearray(valid)
    for _ in range(choice.randint(1, 6)):
        at = choice.randrange(len(content))
        size = choice.randint(1, 16)
        kind = choice.randrange(4)
        if kind == 0:
            content[at] = choice.randrange(256)
        elif kind == 1:
            del content[at : at + size]
        elif kind == 2:
            content[at:at] = content[at : at + size]
        else:
            content[at : at + size] = choice.randbytes(size)
        content = content or bytearray(valid)
    return bytes(content[: choice.randint(1, len(content))] if choice.random() < 0.1 else content)


def pdus(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what the receiver sent into PDUs: type and content."""
    at = 0
    while at + 6 <= len(content):
        kind, length = struct.unpack_from(">BxI", content, at)
        yield kind, content[at + 6 : at + 6 + length]
        at += 6 + length


def name(kind: int, content: bytes) -> str:
    """Name an answer: the status of a message, or the PDU."""
    if kind == 4:
        at = content.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return f"{struct.unpack_from('<H', content, at)[0]:04X}"
    known = {2: "A-ASSOCIATE-AC", 3: "A-ASSOCIATE-RJ", 6: "A-RELEASE-RP", 7: "A-ABORT"}
    return known.get(kind, f"PDU {kind}")


def connect(port: int) -> socket.socket:
    """Connect to the receiver."""
    return socket.create_connection(("127.0.0.1", port), _PATIENCE_S)


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU; type 0 where the receiver closed the connection."""

    def exactly(count: int) -> bytes:
        content = b""
        while len(content) < count:
            part = connection.recv(count - len(content))
            if not part:
                raise ConnectionError
            content += part
        return content

    try:
        kind, length = struct.unpack(">BxI", exactly(6))
        return kind, exactly(length)
    except ConnectionError:
        return 0, b""


def send_mutated_streams(port: int, count: int, choice: random.Random, result: Result) -> None:
    """Send whole sessions with mutations, each over a connection of its own."""
    session = associate_request() + store_request(encode(ct(instance="1.2.3.4.1"))) + RELEASE
    for _ in range(count):
        with connect(port) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(mutated(session, choice))
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    answer += part
        result.answers.update(name(*pdu) for pdu in pdus(answer) if pdu[0] not in {2, 3})


def send_mutated_data_sets(port: int, count: int, choice: random.Random, result: Result) -> None:
    """Send C-STORE requests with mutated data sets; a new association where one ended."""
    connection: socket.socket | None = None
    for number in range(1, count + 1):
        if connection is None:
            connection = connect(port)
            connection.sendall(associate_request())
            assert receive(connection)[0] == 2, "A-ASSOCIATE-AC"
        uid = f"1.2.3.4.{number}"
        connection.sendall(
            store_request(mutated(encode(ct(instance=uid)), choice), sop_instance_uid=uid)
        )
        kind, content = receive(connection)
        result.answers[name(kind, content)] += 1
        if kind != 4:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


def echo(port: int) -> None:
    """Associate, ask for an answer, and release."""
    request = b"".join(
        struct.pack("<HHI", 0, tag, len(value)) + value
        for tag, value in (
            (0x0002, b"1.2.840.10008.1.1\0"),
            (0x0100, struct.pack("<H", C_ECHO)),
            (0x0110, b"\x01\0"),
            (0x0800, b"\x01\x01"),
        )
    )
    with connect(port) as connection:
        connection.sendall(associate_request(abstract_syntax=b"1.2.840.10008.1.1"))
        assert receive(connection)[0] == 2, "A-ASSOCIATE-AC"
        value = struct.pack(">IBB", len(request) + 2, 1, 3) + request
        connection.sendall(struct.pack(">BxI", 4, len(value)) + value)
        assert name(*receive(connection)) == "0000"
        connection.sendall(RELEASE)
        assert receive(connection)[0] == 6, "A-RELEASE-RP"


def mutate(streams: int, data_sets: int, seed: int) -> Result:
    """Send all of it to a receiver."""
    choice, result, ended = random.Random(seed), Result(), threading.Event()

    def ask(port: int) -> None:
        while not ended.wait(0.2):
            begun = time.monotonic()
            echo(port)
            result.echo_s.append(time.monotonic() - begun)

    with tempfile.TemporaryDirectory() as made, receiving(Path(made)) as (process, port):
        asking = threading.Thread(target=ask, args=(port,))
        asking.start()
        try:
            send_mutated_streams(port, streams, choice, result)
            send_mutated_data_sets(port, data_sets, choice, result)
        finally:
            ended.set()
            asking.join()
        echo(port)
        result.alive = process.poll() is None
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        result.peak_bytes = 1024 * int(status.split("VmHWM:")[1].split()[0])
    return result


def main() -> None:
    """Send and print the counts."""
    given = [*sys.argv[1:], *("2000", "20000", "1")[len(sys.argv) - 1 :]]
    streams, data_sets, seed = map(int, given)
    result = mutate(streams, data_sets, seed)
    late = sorted(result.echo_s)[int(0.99 * (len(result.echo_s) - 1))]
    sys.stdout.write(
        f"seed {seed}: {streams} mutated sessions, {data_sets} mutated data sets\n"
        f"answers: {', '.join(f'{key} {n}' for key, n in sorted(result.answers.items()))}\n"
        f"not documented: {result.undocumented or 'none'}; alive: {result.alive}\n"
        f"receiver at most {result.peak_bytes / 1e6:.0f} MB; {len(result.echo_s)} C-ECHO, "
        f"99 of 100 within {1000 * late:.0f} ms\n"
    )


if __name__ == "__main__":
    main()
