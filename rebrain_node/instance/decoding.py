"""Compressed frames are decoded in another process, within limits of size, memory and time.

A codestream is made by whoever sent it, and its decoders are large programs in C. A decoder that
crashes, hangs or takes too much ends its own process; here it is an error with a sentence, and the
next frame gets a new process. One process serves all frames, is started with the first one and is
ended after `IDLE_S` without any.

Messages have a fixed head and a body, see `REQUEST` and `ANSWER`; the first answer is sent unasked
and names the transfer syntaxes whose decoders passed their test.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from rebrain_node.errors import DecodingError

#: transfer syntax UID, rows, columns, samples, bits allocated, bytes of the body: the codestream
REQUEST: Final = struct.Struct("<64sIIHHQ")
#: one of the kinds below, bytes of the body: pixels, or a text
ANSWER: Final = struct.Struct("<BQ")
READY, PIXELS, NOT_DECODED, NO_MEMORY = range(4)
#: after so long without a frame the process is ended, s
IDLE_S: Final = 60.0
#: how long the process may take to start and to test its decoders, s
_START_S: Final = 60.0
#: -P: a module of that name in the current folder, which may be what was sent, is not run
_COMMAND: Final = (sys.executable, "-P", "-m", "rebrain_node.instance.decoding_child")
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
#: bytes that a pipe holds, so that a slice of 512 x 512 goes through it at once
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What decoding one frame may take; the settings ``[decoding]``."""

    maximum_frame_bytes: int = 128 << 20
    memory_bytes: int = 1 << 30
    time_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class CompressedFrame:
    """What the data set says about one compressed frame."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the frame once decoded."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8


class DecodingProcess:
    """Decodes frames in a child process, one at a time; may be used by several threads."""

    def __init__(
        self,
        limits: DecodingLimits,
        *,
        command: Sequence[str] = _COMMAND,
        idle_s: float = IDLE_S,
    ) -> None:
        """Start nothing yet; ``command`` gets memory in bytes and time in seconds."""
        self.limits = limits
        self._command = (*command, str(limits.memory_bytes), str(limits.time_s))
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0  #: process that started the child; a fork of it has none
        self._used_s = 0.0  #: monotonic
        self._working: tuple[str, ...] | None = None
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where none runs."""
        child = self._child
        return None if child is None or self._owner != os.getpid() else child.pid

    def working(self) -> tuple[str, ...]:
        """Transfer syntaxes whose decoders passed their test when the child started.

        A child that is started for this alone is ended again: the first frame may never come.

        Raises
        ------
        DecodingError
            The child does not start.
        """
        with self._lock:
            if self._working is None:
                self._start()
                self._end()
            return self._working or ()

    def decode(self, frame: CompressedFrame, encoded: bytes) -> bytearray:
        """Decode one frame (`rebrain_node.instance.decoders.decode`).

        Raises
        ------
        DecodingError
            The frame exceeds a limit, or cannot be decoded.
        """
        limits = self.limits
        for what, size in (("decoded frame", frame.size_bytes), ("codestream", len(encoded))):
            if size > limits.maximum_frame_bytes:
                raise DecodingError(
                    f"a {what} of {size} bytes is larger than decoding.maximum_frame_bytes, "
                    f"{limits.maximum_frame_bytes}"
                )
        with self._lock:
            child = self._running()
            if frame.transfer_syntax_uid not in (self._working or ()):
                raise DecodingError(
                    f"the decoder of {frame.transfer_syntax_uid} failed its test on this machine"
                )
            kind, body = self._ask(child, frame, encoded)
            self._used_s = time.monotonic()
        if kind == PIXELS and len(body) == frame.size_bytes:
            return body
        if kind == NO_MEMORY:
            raise DecodingError(
                f"the decoder needs more than decoding.memory_bytes, {limits.memory_bytes}"
            )
        raise DecodingError(body.decode("utf-8", "replace")[:500] or "the decoder gave no pixels")

    def close(self) -> None:
        """End the child; the next frame starts another."""
        with self._lock:
            self._end()

    def _ask(
        self, child: subprocess.Popen[bytes], frame: CompressedFrame, encoded: bytes
    ) -> tuple[int, bytearray]:
        head = REQUEST.pack(
            frame.transfer_syntax_uid.encode("ascii"),
            frame.rows,
            frame.columns,
            frame.samples,
            frame.bits_allocated,
            len(encoded),
        )
        deadline = time.monotonic() + self.limits.time_s
        most = max(frame.size_bytes, 4096)
        try:
            _write(child, head, deadline)
            _write(child, encoded, deadline)
            return _read_answer(child, most, deadline)
        except TimeoutError:
            self._end()
            raise DecodingError(
                f"the decoder did not finish within decoding.time_s, {self.limits.time_s:g} s, "
                "and was ended"
            ) from None
        except OSError:
            raise DecodingError(f"the decoder ended ({_how(self._end())})") from None

    def _running(self) -> subprocess.Popen[bytes]:
        child = self._child
        if child is None or self._owner != os.getpid() or child.poll() is not None:
            child = self._start()
        return child

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()
        child = subprocess.Popen(  # noqa: S603 - our own program, no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self._child, self._owner = child, os.getpid()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None  # noqa: S101 - asked for pipes above
            os.set_blocking(pipe.fileno(), False)
            with suppress(OSError):  # beyond what the account may have
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK)
        try:
            kind, body = _read_answer(child, 4096, time.monotonic() + _START_S)
        except OSError as error:  # TimeoutError is one
            reason = _how(self._end()) if not isinstance(error, TimeoutError) else "no answer"
            self._end()
            raise DecodingError(f"the process for decoding does not start ({reason})") from None
        if kind != READY:
            self._end()
            raise DecodingError("the process for decoding does not start (another answer)")
        self._working = tuple(body.decode("ascii").split())
        self._used_s = time.monotonic()
        threading.Thread(
            target=self._end_when_idle, args=(child,), daemon=True, name="decoding-idle"
        ).start()
        return child

    def _end_when_idle(self, child: subprocess.Popen[bytes]) -> None:
        while self._child is child:
            left = self._used_s + self._idle_s - time.monotonic()
            if left > 0:
                time.sleep(min(left, 5.0))
                continue
            with self._lock:
                if self._child is child and time.monotonic() >= self._used_s + self._idle_s:
                    self._end()

    def _end(self) -> int | None:
        """End the child and return its exit code; that of another process is left alone."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return None
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.05)  # where it has just ended by itself, its own exit code counts
        if child.poll() is None:
            child.kill()
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return code


def _how(code: int | None) -> str:
    if code is None:
        return "no exit code"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _write(child: subprocess.Popen[bytes], content: bytes, deadline: float) -> None:
    assert child.stdin is not None  # noqa: S101 - asked for a pipe at the start
    descriptor, left = child.stdin.fileno(), memoryview(content)
    while left:
        try:
            left = left[os.write(descriptor, left[:_CHUNK]) :]
        except BlockingIOError:
            _await(descriptor, select.POLLOUT, deadline)


def _read_answer(
    child: subprocess.Popen[bytes], most: int, deadline: float
) -> tuple[int, bytearray]:
    kind, size = ANSWER.unpack(_read(child, ANSWER.size, deadline))
    if size > most:
        raise OSError(f"an answer of {size} bytes")
    return kind, _read(child, size, deadline)


def _read(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytearray:
    """Read exactly so many bytes.

    Raises
    ------
    TimeoutError
        They have not come by the deadline.
    OSError
        The child has ended.
    """
    assert child.stdout is not None  # noqa: S101 - asked for a pipe at the start
    descriptor, content = child.stdout.fileno(), bytearray(size)
    left = memoryview(content)
    while left:
        try:
            count = os.readv(descriptor, [left])
        except BlockingIOError:
            _await(descriptor, select.POLLIN, deadline)
            continue
        if count == 0:
            raise OSError("the child has ended")
        left = left[count:]
    return content


def _await(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not poll.poll(1000 * left_s):
        raise TimeoutError
