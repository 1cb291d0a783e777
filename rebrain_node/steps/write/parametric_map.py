"""The uncertainty of each voxel as a Parametric Map (PS3.3 A.75) in the MR's own geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.steps.write.codes import NO_UNITS, concept, private
from rebrain_node.steps.write.multiframe import finish, reference_images
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.text import LONG_STRING, plain

EXPECTED_ERROR: Final = private("EXPECTED-ABS-ERROR", "Expected absolute error")
HALF_WIDTH: Final = private("INTERVAL-HALF-WIDTH", "Half-width of the conformal interval")
_LARGEST: Final = 2**16 - 1  #: stored value of an expected error of 1 with uint16
_SHOWN_UP_TO: Final = 0.3  #: uncertainty shown white


def write_parametric_map(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the map of uncertainty, ratio of the display range, one frame a slice."""
    pixels, mapping, scale = _stored(result)
    provenance = result.provenance
    dataset = ParametricMap(
        source_images=reference_images(result),
        pixel_array=pixels,
        series_instance_uid=result.uids.series("PM"),
        series_number=result.series_number("PM"),
        sop_instance_uid=result.uids.instance("PM"),
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=plain(provenance.software_version, LONG_STRING),
        device_serial_number=provenance.bundle_digest,
        contains_recognizable_visual_features=True,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=scale * _SHOWN_UP_TO / 2,
                window_width=scale * _SHOWN_UP_TO,
                voi_lut_function="LINEAR_EXACT",  # LINEAR needs a width of at least 1
            )
        ],
        content_label="UNCERTAINTY",
        content_description=_says(result),
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} uncertainty of MR T1, {result.label}",
    )
    finish(dataset, result, images, "PM")
    return dataset


def _stored(result: Result) -> tuple[npt.NDArray[np.generic], RealWorldValueMapping, float]:
    """Choose stored values, how they map to the ratio, and how much 1 is in stored values."""
    values = np.clip(result.synthetic.uncertainty, 0.0, 1.0)
    if result.options.map_precision == "float32":
        return values.astype(np.float32), _mapping(result, (0.0, 1.0), 1.0), 1.0
    stored = np.rint(values * _LARGEST).astype(np.uint16)
    return stored, _mapping(result, (0, _LARGEST), 1.0 / _LARGEST), float(_LARGEST)


def _mapping(
    result: Result, value_range: tuple[int, int] | tuple[float, float], slope: float
) -> RealWorldValueMapping:
    meaning = result.synthetic.meaning
    return RealWorldValueMapping(
        lut_label="UNCERTAINTY" if meaning.calibrated else "UNCALIBRATED",
        lut_explanation=_says(result),
        unit=concept(NO_UNITS),
        value_range=value_range,
        slope=slope,
        intercept=0.0,
        quantity_definition=concept(EXPECTED_ERROR if meaning.alpha is None else HALF_WIDTH),
    )


def _says(result: Result) -> str:
    """What a value of the map is, and how far it can be trusted; at most 64 characters (LO)."""
    return f"{result.synthetic.meaning.quantity} / range, {result.label}"
