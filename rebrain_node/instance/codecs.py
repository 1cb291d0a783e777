"""Pixel decoders: imagecodecs registered as the one decoder of pydicom for encapsulated images.

``register`` is called once by whoever decodes; ``decodable_transfer_syntaxes`` is the start-up
self-test: only what it returns is ever negotiated. Deflated is never among them, because it
compresses the identity of the patient together with the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Pixels = npt.NDArray[Any]

#: uncompressed transfer syntaxes (PS3.5 A.1, A.2, A.3); numpy reads them, nothing to test
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)

_LABEL = "rebrain"
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})

_DECODERS: dict[UID, Callable[[bytes], Pixels]] = {
    JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    JPEGLossless: imagecodecs.jpeg8_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    HTJ2KLossless: imagecodecs.htj2k_decode,
    HTJ2KLosslessRPCL: imagecodecs.htj2k_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
    HTJ2K: imagecodecs.htj2k_decode,
    JPEGBaseline8Bit: imagecodecs.jpeg8_decode,
    JPEGExtended12Bit: imagecodecs.jpeg8_decode,
}

#: asked for by pydicom of every plugin: transfer syntax to the packages it needs
DECODER_DEPENDENCIES = dict.fromkeys((*_DECODERS, RLELossless), ("numpy", "imagecodecs"))


def is_available(uid: str) -> bool:
    """Say to pydicom whether this plugin decodes the transfer syntax ``uid``."""
    return uid in DECODER_DEPENDENCIES


def register() -> None:
    """Make this module the only decoder pydicom has for encapsulated pixel data.

    Others that happen to be installed are removed, so that the same bytes give the same pixels
    on every machine. Calling it again changes nothing.
    """
    for uid in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid)
        for name in decoder.available_plugins:
            if name != _LABEL:
                decoder.remove_plugin(name)
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, "decode_frame"))


@cache
def decodable_transfer_syntaxes() -> tuple[str, ...]:
    """Decode a known image in every transfer syntax and return those that came back right.

    Lossless ones must be bit-exact, lossy ones within 2 % of the range. Native ones come first
    and are always there. Takes less than 0.3 s, once per process.
    """
    register()
    images = _self_test_images()
    return (*NATIVE, *(uid for uid, image in images.items() if _decodes(uid, *image)))


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame for pydicom: little endian, pixel by pixel, ``bits_allocated`` wide.

    The size is read from the codestream before anything is allocated for it.

    Raises
    ------
    ValueError
        The codestream has another size than rows, columns and samples of the data set say.
    """
    if runner.transfer_syntax == RLELossless:
        return _decode_rle(encoded, runner)
    size, expected = codestream_size(encoded), (runner.rows, runner.columns)
    if size != expected:
        raise ValueError(f"codestream of {size} pixels in an image of {expected}")
    pixels = _DECODERS[UID(runner.transfer_syntax)](encoded)
    samples = runner.samples_per_pixel
    shape = expected if samples == 1 else (*expected, samples)
    if pixels.shape != shape:
        raise ValueError(f"decoded shape {pixels.shape}, the data set says {shape}")
    if samples == 3:
        runner.set_option("planar_configuration", 0)
        if runner.transfer_syntax in {JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000}:
            runner.set_option("photometric_interpretation", "RGB")
    width = runner.bits_allocated // 8
    return pixels.astype(f"<{pixels.dtype.kind}{width}", copy=False).tobytes()


def codestream_size(encoded: bytes) -> tuple[int, int]:
    """Read (rows, columns) from the header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Raises
    ------
    ValueError
        It is none of them, or the header is cut.

    References
    ----------
    ITU-T T.81 B.2.2, T.87 C.2.2 (frame header), T.800 A.5.1 (SIZ).
    """
    if encoded[:4] == b"\xff\x4f\xff\x51" and len(encoded) >= 24:
        right, bottom, left, top = np.frombuffer(encoded, ">u4", 4, 8).tolist()
        return bottom - top, right - left
    if encoded[:2] == b"\xff\xd8":
        for marker, at in _jpeg_segments(encoded):
            if marker in _JPEG_FRAME_MARKERS and at + 9 <= len(encoded):
                rows, columns = np.frombuffer(encoded, ">u2", 2, at + 5).tolist()
                return rows, columns
    raise ValueError("no JPEG, JPEG-LS or JPEG 2000 frame header")


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


def _decode_rle(encoded: bytes, runner: DecodeRunner) -> bytes:
    """Decode one RLE frame into planes, least significant byte first (PS3.5 Annex G)."""
    samples, width = runner.samples_per_pixel, runner.bits_allocated // 8
    out = bytearray(samples * runner.rows * runner.columns * width)
    imagecodecs.dicomrle_decode(encoded, f"<u{width}", out=out)
    runner.set_option("planar_configuration", 1)
    return bytes(out)


def _self_test_images() -> dict[UID, tuple[bytes | bytearray, Pixels]]:
    """Return for each encapsulated transfer syntax a codestream and the pixels it must give."""
    ramp = np.arange(48 * 40, dtype=np.uint32).reshape(48, 40)
    full = (ramp * 2749 % 65536).astype(np.uint16)  # 2749 is odd: all 16 bits vary
    smooth = (ramp // 40 * 40 + ramp % 40 * 20).astype(np.uint16)  # below 4096
    byte = (smooth >> 4).astype(np.uint8)
    sv1 = imagecodecs.jpeg8_encode(full, lossless=True, predictor=1, bitspersample=16)
    other = imagecodecs.jpeg8_encode(full, lossless=True, predictor=4, bitspersample=16)
    ls = imagecodecs.jpegls_encode(full)
    j2k = imagecodecs.jpeg2k_encode(full, codecformat="j2k", level=0, reversible=True)
    htj2k = imagecodecs.htj2k_encode(full, reversible=True)
    baseline = imagecodecs.jpeg8_encode(byte, level=95)
    extended = imagecodecs.jpeg8_encode(smooth, level=95, bitspersample=12)
    return {
        RLELossless: (_literal_rle(full), full),
        JPEGLosslessSV1: (sv1, full),
        JPEGLossless: (other, full),
        JPEGLSLossless: (ls, full),
        JPEG2000Lossless: (j2k, full),
        HTJ2KLossless: (htj2k, full),
        HTJ2KLosslessRPCL: (htj2k, full),
        JPEGLSNearLossless: (ls, full),
        JPEG2000: (j2k, full),
        HTJ2K: (htj2k, full),
        JPEGExtended12Bit: (extended, smooth),
        JPEGBaseline8Bit: (baseline, byte),
    }


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


def _decodes(uid: UID, encoded: bytes | bytearray, pixels: Pixels) -> bool:
    """Say whether pydicom, with this plugin, gives ``pixels`` back for ``encoded``."""
    bits = 8 * pixels.dtype.itemsize
    stored = 12 if uid == JPEGExtended12Bit else bits
    description: dict[str, Any] = {
        "rows": pixels.shape[0],
        "columns": pixels.shape[1],
        "bits_allocated": bits,
        "bits_stored": stored,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": 0,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    try:
        decoded, _ = get_decoder(uid).as_array(encapsulate([bytes(encoded)]), **description)
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    error = int(np.abs(decoded.astype(np.int64) - pixels.astype(np.int64)).max())
    return error <= (0 if uid not in {JPEGBaseline8Bit, JPEGExtended12Bit} else 2**stored // 50)
