"""Decoders of compressed frames (imagecodecs), and the test each has to pass before it is used.

Runs in a process of its own (`decoding_child`) and therefore imports no pydicom. What a codestream
says about its size is read before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt

from rebrain_node.instance.decoding import CompressedFrame

Pixels = npt.NDArray[Any]
FrameDecoder = Callable[[bytes], Pixels]

RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
_JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
_JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_JXL_CONTAINER: Final = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
#: width to height by the number in the codestream (ISO/IEC 18181-1, SizeHeader)
_JXL_RATIOS: Final = {1: (1, 1), 2: (6, 5), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}

#: by transfer syntax UID; RLE is no codestream and is decoded by its own function
DECODERS: Final[Mapping[str, FrameDecoder]] = {
    "1.2.840.10008.1.2.4.70": imagecodecs.jpeg8_decode,  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.57": imagecodecs.jpeg8_decode,  # JPEG Lossless
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_decode,  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202": imagecodecs.htj2k_decode,  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.110": partial(imagecodecs.jpegxl_decode, index=0, numthreads=1),
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,  # JPEG 2000
    "1.2.840.10008.1.2.4.203": imagecodecs.htj2k_decode,  # HTJ2K
    _JPEG_EXTENDED: imagecodecs.jpeg8_decode,
    _JPEG_BASELINE: imagecodecs.jpeg8_decode,
}


def decode(
    frame: CompressedFrame, encoded: bytes, decoders: Mapping[str, FrameDecoder] = DECODERS
) -> bytes:
    """Decode one frame: little endian, `bits_allocated` wide; RLE by plane, others by pixel.

    Raises
    ------
    ValueError
        The codestream has another size than the description, or cannot be decoded.
    """
    if frame.transfer_syntax_uid == RLE_LOSSLESS:
        out = bytearray(frame.size_bytes)
        imagecodecs.dicomrle_decode(encoded, f"<u{frame.bits_allocated // 8}", out=out)
        return bytes(out)
    rows, columns, samples = codestream_shape(encoded)
    if (rows, columns) != (frame.rows, frame.columns) or samples not in {None, frame.samples}:
        raise ValueError(
            f"a codestream of {_shape(rows, columns, samples)} in an image of "
            f"{_shape(frame.rows, frame.columns, frame.samples)}"
        )
    pixels = decoders[frame.transfer_syntax_uid](encoded)
    shape = (rows, columns) if frame.samples == 1 else (rows, columns, frame.samples)
    if pixels.shape != shape:
        raise ValueError(f"decoded shape {pixels.shape}, the data set says {shape}")
    width = frame.bits_allocated // 8
    return pixels.astype(f"<{pixels.dtype.kind}{width}", copy=False).tobytes()


def codestream_shape(encoded: bytes) -> tuple[int, int, int | None]:
    """Read (rows, columns, samples) from the header of a codestream; JPEG XL gives no samples.

    Raises
    ------
    ValueError
        It is none of JPEG, JPEG-LS, JPEG 2000 and JPEG XL, or the header is cut.

    References
    ----------
    ITU-T T.81 B.2.2, T.87 C.2.2 (frame header), T.800 A.5.1 (SIZ), ISO/IEC 18181-1 (SizeHeader).
    """
    if encoded[:4] == b"\xff\x4f\xff\x51" and len(encoded) >= 42:
        right, bottom, left, top = np.frombuffer(encoded, ">u4", 4, 8).tolist()
        return bottom - top, right - left, int.from_bytes(encoded[40:42], "big")
    if encoded[:2] == b"\xff\xd8":
        for marker, at in _jpeg_segments(encoded):
            if marker in _JPEG_FRAME_MARKERS and at + 10 <= len(encoded):
                rows, columns = np.frombuffer(encoded, ">u2", 2, at + 5).tolist()
                return rows, columns, encoded[at + 9]
    header = _jxl_header(encoded)
    if header is not None:
        return *_jxl_size(header), None
    raise ValueError("no header of a JPEG, JPEG-LS, JPEG 2000 or JPEG XL codestream")


def working_transfer_syntaxes(
    decoders: Mapping[str, FrameDecoder] = DECODERS,
) -> tuple[str, ...]:
    """Decode a known image in every transfer syntax and return those that came back right.

    Lossless ones must be bit-exact, lossy ones within 2 % of the range.
    """
    images = _self_test_images()
    return tuple(uid for uid, image in images.items() if _decodes(uid, *image, decoders))


def _shape(rows: int, columns: int, samples: int | None) -> str:
    return f"{rows} x {columns}" + ("" if samples in {None, 1} else f" x {samples}") + " pixels"


def _jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset of the marker) up to the first scan."""
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF and encoded[at + 1] != 0xDA:
        marker = encoded[at + 1]
        yield marker, at
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")


def _jxl_header(encoded: bytes) -> bytes | None:
    """Begin of a JPEG XL codestream behind its signature, bare or in a container; None if none."""
    at = 0
    if encoded[:12] == _JXL_CONTAINER:
        at = 12
        while at + 8 <= len(encoded) and encoded[at + 4 : at + 8] not in {b"jxlc", b"jxlp"}:
            at += max(8, int.from_bytes(encoded[at : at + 4], "big"))
        long_size = 8 if encoded[at : at + 4] == b"\x00\x00\x00\x01" else 0
        at += 8 + long_size + (4 if encoded[at + 4 : at + 8] == b"jxlp" else 0)
    return encoded[at + 2 : at + 14] if encoded[at : at + 2] == b"\xff\x0a" else None


def _jxl_size(header: bytes) -> tuple[int, int]:
    """Read (rows, columns) from the SizeHeader, whose bits begin with the least significant.

    Raises
    ------
    ValueError
        It is cut.
    """
    if len(header) < 10:
        raise ValueError("the header of the JPEG XL codestream is cut")
    content = int.from_bytes(header, "little")

    def take(bits: int) -> int:
        nonlocal content
        value, content = content & ((1 << bits) - 1), content >> bits
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else 1 + take((9, 13, 18, 30)[take(2)])

    rows = side()
    ratio = _JXL_RATIOS.get(take(3))
    return rows, side() if ratio is None else rows * ratio[0] // ratio[1]


def _self_test_images() -> dict[str, tuple[bytes, Pixels]]:
    """Return for each transfer syntax a codestream and the pixels it must give."""
    ramp = np.arange(48 * 40, dtype=np.uint32).reshape(48, 40)
    full = (ramp * 2749 % 65536).astype(np.uint16)  # 2749 is odd: all 16 bits vary
    smooth = (ramp // 40 * 40 + ramp % 40 * 20).astype(np.uint16)  # below 4096
    byte = (smooth >> 4).astype(np.uint8)
    sv1 = imagecodecs.jpeg8_encode(full, lossless=True, predictor=1, bitspersample=16)
    other = imagecodecs.jpeg8_encode(full, lossless=True, predictor=4, bitspersample=16)
    ls = imagecodecs.jpegls_encode(full)
    j2k = imagecodecs.jpeg2k_encode(full, codecformat="j2k", level=0, reversible=True)
    htj2k = imagecodecs.htj2k_encode(full, reversible=True)
    images: dict[str, tuple[Any, Pixels]] = {
        RLE_LOSSLESS: (_literal_rle(full), full),
        "1.2.840.10008.1.2.4.70": (sv1, full),
        "1.2.840.10008.1.2.4.57": (other, full),
        "1.2.840.10008.1.2.4.80": (ls, full),
        "1.2.840.10008.1.2.4.90": (j2k, full),
        "1.2.840.10008.1.2.4.201": (htj2k, full),
        "1.2.840.10008.1.2.4.202": (htj2k, full),
        "1.2.840.10008.1.2.4.110": (imagecodecs.jpegxl_encode(full, lossless=True), full),
        "1.2.840.10008.1.2.4.81": (ls, full),
        "1.2.840.10008.1.2.4.91": (j2k, full),
        "1.2.840.10008.1.2.4.203": (htj2k, full),
        _JPEG_EXTENDED: (imagecodecs.jpeg8_encode(smooth, level=95, bitspersample=12), smooth),
        _JPEG_BASELINE: (imagecodecs.jpeg8_encode(byte, level=95), byte),
    }
    return {uid: (bytes(encoded), pixels) for uid, (encoded, pixels) in images.items()}


def _literal_rle(image: Pixels) -> bytes:
    """Encode a 16-bit image as two RLE segments of literal runs (PS3.5 Annex G)."""
    planes = image.astype(">u2").view(np.uint8).reshape(-1, 2).T
    runs = [
        b"".join(
            bytes((len(run) - 1,)) + run
            for run in (plane.tobytes()[at : at + 128] for at in range(0, plane.size, 128))
        )
        for plane in planes
    ]
    padded = [run + b"\x00" * (len(run) % 2) for run in runs]
    header = np.array([2, 64, 64 + len(padded[0]), *[0] * 13], "<u4")
    return header.tobytes() + b"".join(padded)


def _decodes(
    uid: str, encoded: bytes, pixels: Pixels, decoders: Mapping[str, FrameDecoder]
) -> bool:
    """Say whether the decoder of ``uid`` gives ``pixels`` back for ``encoded``."""
    rows, columns = pixels.shape
    frame = CompressedFrame(
        transfer_syntax_uid=uid,
        rows=rows,
        columns=columns,
        samples=1,
        bits_allocated=8 * pixels.dtype.itemsize,
    )
    try:
        decoded = np.frombuffer(decode(frame, encoded, decoders), pixels.dtype).reshape(rows, -1)
    except (RuntimeError, ValueError, NotImplementedError, ImportError):
        return False
    error = int(np.abs(decoded.astype(np.int64) - pixels.astype(np.int64)).max())
    return error <= {_JPEG_BASELINE: 256 // 50, _JPEG_EXTENDED: 4096 // 50}.get(uid, 0)
