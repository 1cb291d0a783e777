"""Voxels not to be trusted as a Segmentation (PS3.3 A.51): viewers show it where they show no map.

Segment 1: inside the head, uncertainty above the limit of the options. Segment 2: outside the
head, where nothing was synthesised and any structure is an artefact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.steps.write.codes import ARTIFICIAL_INTELLIGENCE, Triple, concept, private
from rebrain_node.steps.write.multiframe import finish, reference_images
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.text import LONG_STRING, plain

_CATEGORY: Final = ("309825002", "SCT", "Spatial and Relational Concept")
UNCERTAIN: Final = private("UNCERTAIN", "Uncertainty above the limit")
OUTSIDE: Final = private("OUTSIDE-HEAD", "Outside the head")
_ORANGE: Final = CIELabColor(67.0, 43.0, 74.0)
_GREY: Final = CIELabColor(54.0, 0.0, 0.0)


def write_segmentation(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the segmentation; frames without a voxel are left out."""
    synthetic, limit = result.synthetic, result.options.uncertain_above
    uncertain = synthetic.head & (synthetic.uncertainty > limit)
    voxels = np.stack([uncertain, ~synthetic.head], axis=-1).astype(np.uint8)
    provenance = result.provenance
    dataset = Segmentation(
        source_images=reference_images(result),
        pixel_array=voxels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(result, 1, f"Uncertainty above {limit:g}, {result.label}", UNCERTAIN),
            _segment(result, 2, "Outside the head", OUTSIDE),
        ],
        series_instance_uid=result.uids.series("SEG"),
        series_number=result.series_number("SEG"),
        sop_instance_uid=result.uids.instance("SEG"),
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=plain(provenance.software_version, LONG_STRING),
        device_serial_number=provenance.bundle_digest,
        omit_empty_frames=bool(voxels.any()),
        content_label="UNTRUSTED",
        content_description="Voxels of the synthetic MR that are not to be trusted",
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} voxels of MR T1 not to be trusted",
    )
    finish(dataset, result, images, "SEG")
    return dataset


def _segment(result: Result, number: int, label: str, kind: Triple) -> SegmentDescription:
    provenance = result.provenance
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=concept(_CATEGORY),
        segmented_property_type=concept(kind),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain(provenance.bundle_name, LONG_STRING),
            family=concept(ARTIFICIAL_INTELLIGENCE),
            version=plain(provenance.bundle_version, LONG_STRING),
            source=marks.MANUFACTURER,
        ),
        display_color=_ORANGE if number == 1 else _GREY,
    )
