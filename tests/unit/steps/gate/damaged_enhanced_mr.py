"""Damages to an Enhanced MR, in the instance and in the groups of its frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from tests.unit.steps.gate.damaged_mr import FOREIGN_UID, leave_out, setting
from tests.unit.steps.gate.editable_set import EditableSet


def frame(good: EditableSet, index: int = 1) -> Dataset:
    return good.mr[0].PerFrameFunctionalGroupsSequence[index]


def shared(good: EditableSet) -> Dataset:
    return good.mr[0].SharedFunctionalGroupsSequence[0]


def in_group(holder: Callable[[EditableSet], Dataset], group: str, keyword: str, value: object):
    """EditableSet an attribute of the first item of a functional group; None deletes it."""

    def damage(good: EditableSet) -> None:
        item = holder(good)[group].value[0]
        if value is None:
            del item[keyword]
        else:
            setattr(item, keyword, value)

    return damage


def no_provenance_of_a_frame(good: EditableSet) -> None:
    leave_out(good, "SR", "KOS")
    block = frame(good).private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    del block[marks.SLICE_PROVENANCE.offset]


def exemplar_of_a_frame_below_the_threshold(good: EditableSet) -> None:
    leave_out(good, "SR", "KOS")
    block = frame(good, 2).private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    item = block[marks.SLICE_PROVENANCE.offset].value[0]
    own = item.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    del own[marks.SIMILARITY.offset]
    own.add_new(marks.SIMILARITY.offset, "FD", 0.1)


def frame_without_a_position(good: EditableSet) -> None:
    leave_out(good, "PM", "SEG", "SC", "SR", "KOS")
    del good.mr[0].PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence


def stack_numbered_backwards(good: EditableSet) -> None:
    frames = good.mr[0].PerFrameFunctionalGroupsSequence
    for number, group in enumerate(reversed(frames), start=1):
        group.FrameContentSequence[0].InStackPositionNumber = number


def magnet_in_a_functional_group(good: EditableSet) -> None:
    timing = Dataset()
    timing.FlipAngle = 90.0
    shared(good).MRTimingAndRelatedParametersSequence = [timing]


def pixels(good: EditableSet, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = good.mr[0]
    shape = image.NumberOfFrames, image.Rows, image.Columns
    stored = np.frombuffer(image.PixelData, "<u2").reshape(shape).copy()
    image.PixelData = np.ascontiguousarray(change(stored).astype("<u2")).tobytes()


def frame_empty(stored: np.ndarray) -> np.ndarray:
    stored[5] = 0
    return stored


def map_of_the_next_frame(good: EditableSet) -> None:
    frames = good.of_kind("PM")[0].PerFrameFunctionalGroupsSequence
    for group, number in zip(frames[3:5], (5, 4), strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = number


def report_without_frames(good: EditableSet) -> None:
    for group in good.of_kind("SR")[0].ContentSequence[-1].ContentSequence[1:]:
        for item in group.ContentSequence:
            if item.ValueType == "IMAGE":
                item.ReferencedSOPSequence[0].pop("ReferencedFrameNumber", None)


#: name to (code of the rule that finds it, damage)
DAMAGES = {
    "no synthetic mark": ("GATE-SYNTHETIC-DATA", setting("SyntheticData", None)),
    "qualified as product": (
        "GATE-CONTENT-QUALIFICATION",
        setting("ContentQualification", "PRODUCT"),
    ),
    "image type original": (
        "GATE-IMAGE-TYPE",
        setting("ImageType", ["ORIGINAL", "PRIMARY", "OTHER", "SYNTHETIC"]),
    ),
    "frame type of a scanner": (
        "GATE-IMAGE-TYPE",
        in_group(
            shared, "MRImageFrameTypeSequence", "FrameType", ["ORIGINAL", "PRIMARY", "T1", "NONE"]
        ),
    ),
    "comment without warning": ("GATE-COMMENTS", setting("ImageComments", "T1")),
    "frame without position kind in comments": (
        "GATE-KIND-IN-WORDS",
        in_group(frame, "FrameContentSequence", "FrameComments", "SYNTHETIC"),
    ),
    "frame description without mark": (
        "GATE-DERIVATION-DESCRIPTION",
        in_group(frame, "DerivationImageSequence", "DerivationDescription", "resampled"),
    ),
    "frame without derivation code": (
        "GATE-DERIVATION-CODE",
        in_group(frame, "DerivationImageSequence", "DerivationCodeSequence", None),
    ),
    "frame without source image": (
        "GATE-SOURCE-IMAGES",
        in_group(frame, "DerivationImageSequence", "SourceImageSequence", None),
    ),
    "frame without provenance": ("GATE-SLICE-BLOCK", no_provenance_of_a_frame),
    "exemplar of a frame below the threshold": (
        "GATE-SIMILARITY",
        exemplar_of_a_frame_below_the_threshold,
    ),
    "T1 claimed": ("GATE-SCANNING-SEQUENCE", setting("AcquisitionContrast", "T1")),
    "T1 claimed of the frames": (
        "GATE-SCANNING-SEQUENCE",
        in_group(shared, "MRImageFrameTypeSequence", "AcquisitionContrast", "T1"),
    ),
    "flip angle claimed": ("GATE-MAGNET", magnet_in_a_functional_group),
    "field strength claimed": ("GATE-MAGNET", setting("MagneticFieldStrength", 3)),
    "other frame of reference": (
        "GATE-FRAME-OF-REFERENCE",
        setting("FrameOfReferenceUID", FOREIGN_UID),
    ),
    "frame without a position": ("GATE-PLANE", frame_without_a_position),
    "spacing declared wrongly": (
        "GATE-SPACING",
        in_group(shared, "PixelMeasuresSequence", "SpacingBetweenSlices", 4.9),
    ),
    "no thickness": (
        "GATE-THICKNESS",
        in_group(shared, "PixelMeasuresSequence", "SliceThickness", None),
    ),
    "no window": ("GATE-WINDOW", in_group(shared, "FrameVOILUTSequence", "WindowCenter", None)),
    "numbered backwards": ("GATE-ORDER", stack_numbered_backwards),
    "mirrored": ("GATE-FLIP", lambda good: pixels(good, lambda stored: stored[:, :, ::-1])),
    "frames in reverse order": (
        "GATE-FLIP",
        lambda good: pixels(good, lambda stored: stored[::-1]),
    ),
    "one frame empty": ("GATE-PIXEL-CONSTANT", lambda good: pixels(good, frame_empty)),
    "map of the next frame": ("GATE-MAP-FRAMES", map_of_the_next_frame),
    "report without frames": ("GATE-REPORT-SLICES", report_without_frames),
}
