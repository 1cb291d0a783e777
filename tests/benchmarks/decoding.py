"""Cost of decoding a frame in the child process: ``python -m tests.benchmarks.decoding``.

Prints for each codec the CPU time of one 512 x 512 slice of 16 bits, decoded in this process and
in the child (both processes together), and the shortest wall times.
"""

from __future__ import annotations

import time
from pathlib import Path

import imagecodecs
import numpy as np

from rebrain_node.instance import decoders
from rebrain_node.instance.decoding import CompressedFrame, DecodingLimits, DecodingProcess

_SLICES = 100


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    return int(fields[0]) / 1e9


def _slice() -> np.ndarray:
    noise = np.random.default_rng(1).normal(1000, 10, (512, 512))
    return (noise + np.hypot(*np.mgrid[-1:1:512j, -1:1:512j]) * 500).astype(np.uint16)


def _frame(uid: str) -> CompressedFrame:
    return CompressedFrame(
        transfer_syntax_uid=uid, rows=512, columns=512, samples=1, bits_allocated=16
    )


def main() -> None:
    image = _slice()
    streams = {
        "1.2.840.10008.1.2.4.70": imagecodecs.jpeg8_encode(
            image, lossless=True, predictor=1, bitspersample=16
        ),
        "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode(image),
        "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_encode(
            image, codecformat="j2k", level=0, reversible=True
        ),
        "1.2.840.10008.1.2.4.110": imagecodecs.jpegxl_encode(image, lossless=True),
    }
    process = DecodingProcess(DecodingLimits())
    begun = time.monotonic()
    first = bytes(streams["1.2.840.10008.1.2.4.80"])
    process.decode(_frame("1.2.840.10008.1.2.4.80"), first)
    print(f"first frame after {time.monotonic() - begun:.2f} s")  # noqa: T201
    assert process.pid is not None
    for uid, stream in streams.items():
        encoded = bytes(stream)
        frame = _frame(uid)
        figures = []
        for decode in (decoders.decode, process.decode):
            before, wall = time.process_time() + _cpu_s(process.pid), []
            for _ in range(_SLICES):
                start = time.perf_counter()
                assert decode(frame, encoded) == image.tobytes()
                wall.append(time.perf_counter() - start)
            cpu = time.process_time() + _cpu_s(process.pid) - before
            figures += [1000 * cpu / _SLICES, 1000 * min(wall)]
        print(  # noqa: T201 - the result
            f"{uid}: CPU {figures[0]:.2f} ms here, {figures[2]:.2f} ms in the child "
            f"({figures[2] - figures[0]:+.2f}); shortest {figures[1]:.2f} and {figures[3]:.2f} ms"
        )
    process.close()


if __name__ == "__main__":
    main()
