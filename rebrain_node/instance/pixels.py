"""Stored values to Hounsfield units, and which pixels the scanner did not measure.

HU = stored value x Rescale Slope + Rescale Intercept (PS3.3 C.11.1.1.2); bits above High Bit are
no part of the value (PS3.5 8.1.1); padding is C.7.5.1.1.2.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length, pixel_array

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.volume import AIR_HU, FloatArray, MaskArray
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance import codecs
from rebrain_node.instance.header import frame_attribute

#: an undeclared padding constant fills at least this share of the frame
_PADDING_SHARE = 0.001

#: a padding value is none of these: from fat and water to the densest bone
TISSUE_HU = (-900.0, 2900.0)

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
                    sentence=f"the pixel data cannot be decoded ({codecs.reason_of(error)})",
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


def padding_as_tissue_hu(instance: Dataset) -> float | None:
    """Return the HU of a declared Pixel Padding Value that tissue may have; None where it has not.

    Such a value is not believed (`hounsfield`): brain would become air. Of a range that Pixel
    Padding Range Limit opens, the end nearer to the middle of the scale counts.
    """
    ends = _padding_ends(instance)
    frame_number = None if "PerFrameFunctionalGroupsSequence" not in instance else 1
    slope, intercept = (
        _one(frame_attribute(instance, frame_number, word))
        for word in ("RescaleSlope", "RescaleIntercept")
    )
    if ends is None or slope is None or intercept is None:
        return None
    low, high = sorted(end * slope + intercept for end in ends)
    if high < TISSUE_HU[0] or low > TISSUE_HU[1]:
        return None
    return high if high <= TISSUE_HU[1] else low


def _rescale(instance: Dataset, frame_number: int | None) -> tuple[float, float]:
    declared = [
        frame_attribute(instance, frame_number, word)
        for word in ("RescaleSlope", "RescaleIntercept")
    ]
    if any(value is None for value in declared):
        raise SeriesRejectedError(
            [
                Finding(
                    code="HU",
                    sentence="Rescale Slope (0028,1053) or Intercept (0028,1052) is absent or is "
                    "not one number: the scale is unknown; send the original CT",
                )
            ]
        )
    slope, intercept = (_one(value) for value in declared)
    if slope is None or intercept is None or slope <= 0.0:
        raise SeriesRejectedError(
            [
                Finding(
                    code="HU",
                    sentence=(
                        f"Rescale Slope {declared[0]} and Intercept {declared[1]} give no HU "
                        "scale: one number each is needed, the slope above 0; send the original CT"
                    ),
                )
            ]
        )
    return slope, intercept


def _one(value: Any) -> float | None:
    """Return a number, also where a scanner wrote it more than once; None where it is none."""
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        numbers = {float(each) for each in values}
    except (TypeError, ValueError):
        return None
    number = numbers.pop() if len(numbers) == 1 else np.nan
    return number if np.isfinite(number) else None


def _declared_padding(instance: Dataset, stored: StoredArray) -> MaskArray:
    """Pixel Padding Value and Range Limit, unless tissue may have it."""
    ends = _padding_ends(instance)
    if ends is None or padding_as_tissue_hu(instance) is not None:
        return np.zeros(stored.shape, dtype=np.bool_)
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _padding_ends(instance: Dataset) -> tuple[int, int] | None:
    """Least and greatest stored value that is declared as padding, signed as the pixels are."""
    value = _one(instance.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = _one(instance.get("PixelPaddingRangeLimit"))
    ends = sorted(_as_stored(int(v), instance) for v in (value, value if limit is None else limit))
    return ends[0], ends[1]


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
