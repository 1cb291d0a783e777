"""Stored values to Hounsfield units, and which pixels the scanner did not measure.

HU = stored value x Rescale Slope + Rescale Intercept (PS3.3 C.11.1.1.2); bits above High Bit are
no part of the value (PS3.5 8.1.1); padding is C.7.5.1.1.2.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length, pixel_array

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.volume import AIR_HU, FloatArray, MaskArray
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance import codecs
from rebrain_node.instance.header import frame_attribute

#: an undeclared padding constant fills at least this share of the frame
_PADDING_SHARE = 0.001

StoredArray = npt.NDArray[np.int32]


def hounsfield(instance: Dataset, frame_number: int | None) -> tuple[FloatArray, MaskArray]:
    """Decode one frame into Hounsfield units.

    Parameters
    ----------
    instance : Dataset
        With pixel data and ``file_meta`` naming the transfer syntax.
    frame_number : int or None
        1-based; ``None`` for a classic instance.

    Returns
    -------
    hu : FloatArray
        (rows, columns), at least -1024; padding is -1024.
    padding : MaskArray
        (rows, columns), true where the scanner measured nothing.

    Raises
    ------
    SeriesRejectedError
        ``PIXEL-DATA``: absent, not decodable or in colour; ``HU``: no usable slope and intercept.
    """
    slope, intercept = _rescale(instance, frame_number)
    stored = stored_values(instance, frame_number)
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    padding = _declared_padding(instance, stored) | _undeclared_padding(stored, hu)
    hu[padding] = AIR_HU
    return np.maximum(hu, np.float32(AIR_HU)), padding


def stored_values(instance: Dataset, frame_number: int | None) -> StoredArray:
    """Decode one frame's stored values, (rows, columns), sign and unused bits settled.

    Raises
    ------
    SeriesRejectedError
        ``PIXEL-DATA``: absent, not decodable or in colour.
    """
    if instance.get("SamplesPerPixel", 1) != 1:
        raise SeriesRejectedError(
            [Finding(code="PIXEL-DATA", sentence="the pixel data are in colour, CT is monochrome")]
        )
    if "PixelData" not in instance:
        raise SeriesRejectedError(
            [Finding(code="PIXEL-DATA", sentence="the instance holds no pixel data")]
        )
    codecs.register()
    try:
        decoded = pixel_array(without_excess(instance), index=(frame_number or 1) - 1)
        bits = int(instance.BitsStored)
        shift = int(instance.get("HighBit", bits - 1)) - (bits - 1)
        signed = int(instance.PixelRepresentation) == 1
    except (ValueError, RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
        raise SeriesRejectedError(
            [
                Finding(
                    code="PIXEL-DATA",
                    sentence=f"the pixel data cannot be decoded ({_first_line(error)})",
                )
            ]
        ) from error
    return settle_bits(np.asarray(decoded), bits=bits, shift=shift, signed=signed)


def without_excess(instance: Dataset) -> Dataset:
    """Cut what follows the pixels within uncompressed Pixel Data (PS3.5 8.1.1).

    Returns the instance itself where nothing follows.

    Raises
    ------
    ValueError, TypeError, AttributeError
        The description of the pixels cannot be read.
    """
    if instance.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in instance:
        return instance
    length = get_expected_length(instance)
    length += length % 2
    if len(instance.PixelData) <= length:
        return instance
    cut = copy.copy(instance)
    cut.PixelData = instance.PixelData[:length]
    return cut


def settle_bits(
    decoded: npt.NDArray[np.integer], *, bits: int, shift: int, signed: bool
) -> StoredArray:
    """Drop the bits outside the value and extend its sign."""
    value = (decoded.astype(np.int64) >> max(shift, 0)) & ((1 << bits) - 1)
    if signed:
        value = np.where(value >= 1 << (bits - 1), value - (1 << bits), value)
    return value.astype(np.int32)


def _rescale(instance: Dataset, frame_number: int | None) -> tuple[float, float]:
    slope = frame_attribute(instance, frame_number, "RescaleSlope")
    intercept = frame_attribute(instance, frame_number, "RescaleIntercept")
    if slope is None or intercept is None:
        raise SeriesRejectedError(
            [
                Finding(
                    code="HU",
                    sentence="Rescale Slope (0028,1053) or Intercept (0028,1052) is absent or is "
                    "not one number: the scale is unknown; send the original CT",
                )
            ]
        )
    if not (np.isfinite(float(slope)) and np.isfinite(float(intercept))) or float(slope) <= 0.0:
        raise SeriesRejectedError(
            [
                Finding(
                    code="HU",
                    sentence=f"Rescale Slope {slope} and Intercept {intercept} give no HU scale",
                )
            ]
        )
    return float(slope), float(intercept)


def _declared_padding(instance: Dataset, stored: StoredArray) -> MaskArray:
    """Pixel Padding Value and Range Limit, their sign read as that of the pixels."""
    value = instance.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = instance.get("PixelPaddingRangeLimit")
    ends = sorted(_as_stored(int(v), instance) for v in (value, value if limit is None else limit))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _as_stored(value: int, instance: Dataset) -> int:
    """Read a padding value written with the wrong of the two representations US and SS."""
    if int(instance.PixelRepresentation) == 1 and value >= 0x8000:
        return value - 0x10000
    if int(instance.PixelRepresentation) == 0 and value < 0:
        return value + 0x10000
    return value


def _undeclared_padding(stored: StoredArray, hu: FloatArray) -> MaskArray:
    """Find a constant below air that fills the corners, e.g. -2048 where nothing is declared."""
    lowest = stored.min()
    mask = np.asarray(stored == lowest)
    below_air = bool(hu[mask][0] < AIR_HU)
    at_a_corner = bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].any())
    if below_air and at_a_corner and float(mask.mean()) >= _PADDING_SHARE:
        return mask
    return np.zeros(stored.shape, dtype=np.bool_)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
