"""Our decoders as the one decoder of pydicom for encapsulated images.

``register`` is called once by whoever decodes. ``decodable_transfer_syntaxes`` is what passed the
self-test at the start; only that is ever negotiated. Deflated is never among them, because it
compresses the identity of the patient together with the pixels.
"""

from __future__ import annotations

from typing import Final

from pydicom.pixels.decoders.base import (
    _PIXEL_DATA_DECODERS,
    Decoder,
    DecodeRunner,
    get_decoder,
)
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

from rebrain_node.instance.decoding import CompressedFrame, DecodingLimits, DecodingProcess
from rebrain_node.instance.jpeg_xl import JPEG_XL_LOSSLESS

#: uncompressed transfer syntaxes (PS3.5 A.1, A.2, A.3); numpy reads them, nothing to test
NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
#: encapsulated ones that we have a decoder for
_ENCAPSULATED: Final = (
    RLELossless, JPEGLosslessSV1, JPEGLossless, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless,
    HTJ2KLosslessRPCL, JPEG_XL_LOSSLESS, JPEGLSNearLossless, JPEG2000, HTJ2K, JPEGExtended12Bit,
    JPEGBaseline8Bit,
)  # fmt: skip
#: colour comes out of these as RGB
_TO_RGB: Final = frozenset({JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000})

_LABEL: Final = "rebrain"
#: asked for by pydicom of every plugin: transfer syntax to the packages it needs
DECODER_DEPENDENCIES = dict.fromkeys(_ENCAPSULATED, ("numpy", "imagecodecs"))

_process = DecodingProcess(DecodingLimits())


def is_available(uid: str) -> bool:
    """Say to pydicom whether this plugin decodes the transfer syntax ``uid``."""
    return uid in DECODER_DEPENDENCIES


def register() -> None:
    """Make this module the only decoder pydicom has for encapsulated pixel data.

    Others that happen to be installed are removed, so that the same bytes give the same pixels
    on every machine. Calling it again changes nothing.
    """
    _PIXEL_DATA_DECODERS.setdefault(JPEG_XL_LOSSLESS, (Decoder(JPEG_XL_LOSSLESS), ""))
    for uid in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid)
        for name in decoder.available_plugins:
            if name != _LABEL:
                decoder.remove_plugin(name)
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, "decode_frame"))


def set_limits(limits: DecodingLimits) -> None:
    """Set what decoding may take in this process from now on."""
    global _process
    if _process.limits != limits:
        _process.close()
        _process = DecodingProcess(limits)


def decodable_transfer_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes whose decoders gave a known image back; native ones first.

    Raises
    ------
    DecodingError
        The process that decodes cannot be started.
    """
    return (*NATIVE, *map(UID, _process.working()))


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame for pydicom, in the child process.

    Raises
    ------
    DecodingError
        It exceeds a limit or cannot be decoded; the sentence says which.
    """
    frame = CompressedFrame(
        transfer_syntax_uid=str(runner.transfer_syntax),
        rows=runner.rows,
        columns=runner.columns,
        samples=runner.samples_per_pixel,
        bits_allocated=runner.bits_allocated,
    )
    pixels = _process.decode(frame, encoded)
    if runner.transfer_syntax == RLELossless:
        runner.set_option("planar_configuration", 1)
    elif frame.samples == 3:
        runner.set_option("planar_configuration", 0)
        if runner.transfer_syntax in _TO_RGB:
            runner.set_option("photometric_interpretation", "RGB")
    return pixels


def reason_of(error: Exception) -> str:
    """Return why pixels were not decoded, in one line; pydicom wraps what a plugin says."""
    text = str(error)
    own = text.partition(f"{_LABEL}: ")[2] or text
    return (own.splitlines() or [type(error).__name__])[0]
