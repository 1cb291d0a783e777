"""The process in which compressed frames are decoded: ``python -m ...decoding_child``.

It is given bytes of pixels and their description, never who they are of. It ends when its standard
input closes, and by an alarm when one frame takes much longer than its parent waits. Memory beyond
the limit cannot be had, no file can be written and no core is dumped.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from rebrain_node.instance.decoders import (
    DECODERS,
    FrameDecoder,
    decode,
    working_transfer_syntaxes,
)
from rebrain_node.instance.decoding import (
    ANSWER,
    NO_MEMORY,
    NOT_DECODED,
    PIXELS,
    READY,
    REQUEST,
    CompressedFrame,
)

#: the alarm goes off so much later than the parent stops waiting, s
_ALARM_AFTER_S: Final = 5.0


class ChildLimits(NamedTuple):
    """What the process may take for one frame."""

    memory_bytes: int
    time_s: float

    @classmethod
    def of_arguments(cls) -> ChildLimits:
        """Read them from the command line."""
        return cls(int(sys.argv[1]), float(sys.argv[2]))


def main() -> None:
    """Be the process."""
    serve(DECODERS, ChildLimits.of_arguments())


def serve(decoders: Mapping[str, FrameDecoder], limits: ChildLimits) -> None:
    """Test the decoders, then decode what is asked for until standard input closes."""
    working = working_transfer_syntaxes(decoders)
    _confine(limits.memory_bytes)
    _answer(READY, " ".join(working).encode())
    while head := _read(REQUEST.size):
        uid, rows, columns, samples, bits, size = REQUEST.unpack(head)
        encoded = _read(size)
        frame = CompressedFrame(
            transfer_syntax_uid=uid.rstrip(b"\0").decode("ascii"),
            rows=rows,
            columns=columns,
            samples=samples,
            bits_allocated=bits,
        )
        signal.setitimer(signal.ITIMER_REAL, limits.time_s + _ALARM_AFTER_S)
        _answer(*_decoded(frame, encoded, decoders))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _decoded(
    frame: CompressedFrame, encoded: bytes, decoders: Mapping[str, FrameDecoder]
) -> tuple[int, bytes]:
    try:
        return PIXELS, decode(frame, encoded, decoders)
    except MemoryError:
        return NO_MEMORY, b""
    except Exception as error:  # noqa: BLE001 - a decoder may fail in any way; the parent is told
        return NOT_DECODED, " ".join(str(error).split())[:500].encode()


def _confine(memory_bytes: int) -> None:
    """Limit the address space to what is in use now and the limit; write no file, dump no core."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(size: int) -> bytes:
    """Read exactly so many bytes; none where the input has ended."""
    content = sys.stdin.buffer.read(size)
    return content if len(content) == size else b""


def _answer(kind: int, body: bytes) -> None:
    left = memoryview(body)
    os.write(1, ANSWER.pack(kind, len(body)))
    while left:
        left = left[os.write(1, left) :]


if __name__ == "__main__":
    main()
