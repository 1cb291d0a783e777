"""Damages to the companions of the MR series and to the set; each violates exactly one rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from rebrain_node.domain import marks
from tests.unit.steps.gate.damaged_mr import FOREIGN_UID, leave_out, private, setting
from tests.unit.steps.gate.editable_set import EditableSet


def one(good: EditableSet, kind: str):
    return good.of_kind(kind)[0]


def bytes_of(kind: str, change: Callable[[bytes], bytes]) -> Callable[[EditableSet], None]:
    """Change the encoded bytes of an object."""

    def damage(good: EditableSet) -> None:
        good.records = lambda records: [
            replace(record, content=change(record.content)) if record.kind == kind else record
            for record in records
        ]

    return damage


def patient_id_twice(content: bytes) -> bytes:
    """Insert a second Patient ID after the first: pydicom would read only the last."""
    start = content.index(b"\x10\x00\x20\x00LO")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    element = content[start : start + 8 + length]
    return content[:start] + element + content[start:]


def without(kind: str) -> Callable[[EditableSet], None]:
    """Leave an object out and out of the key object selection too."""

    def damage(good: EditableSet) -> None:
        good.objects = [pair for pair in good.objects if pair[0] != kind]
        keep_in_key_object(good)

    return damage


def keep_in_key_object(good: EditableSet) -> None:
    kept = {dataset.SOPInstanceUID for dataset in good.all}
    for dataset in good.of_kind("KOS"):
        for study in dataset.CurrentRequestedProcedureEvidenceSequence:
            for series in list(study.ReferencedSeriesSequence):
                references = [
                    r for r in series.ReferencedSOPSequence if r.ReferencedSOPInstanceUID in kept
                ]
                series.ReferencedSOPSequence = references
                if not references:
                    study.ReferencedSeriesSequence.remove(series)


def not_requested(good: EditableSet) -> None:
    good.companions = tuple(kind for kind in good.companions if kind != "SC")


def key_object_sent_first(good: EditableSet) -> None:
    good.objects = [good.objects[-1], *good.objects[:-1]]


def key_object_of_another_class(good: EditableSet) -> None:
    dataset = one(good, "KOS")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage


def key_object_without_one_object(good: EditableSet) -> None:
    study = one(good, "KOS").CurrentRequestedProcedureEvidenceSequence[0]
    longest = max(study.ReferencedSeriesSequence, key=lambda s: len(s.ReferencedSOPSequence))
    longest.ReferencedSOPSequence.pop()


def report_without_one_image(good: EditableSet) -> None:
    mr = good.mr[0].SeriesInstanceUID
    study = one(good, "SR").CurrentRequestedProcedureEvidenceSequence[0]
    for series in study.ReferencedSeriesSequence:
        if series.SeriesInstanceUID == mr:
            series.ReferencedSOPSequence.pop()


def map_without_one_reference(good: EditableSet) -> None:
    for item in one(good, "PM").ReferencedSeriesSequence:
        if item.SeriesInstanceUID == good.mr[0].SeriesInstanceUID:
            item.ReferencedInstanceSequence.pop()


def map_frame_of_the_next_slice(good: EditableSet) -> None:
    frames = one(good, "PM").PerFrameFunctionalGroupsSequence
    first, second = (f.DerivationImageSequence for f in frames[3:5])
    frames[3].DerivationImageSequence, frames[4].DerivationImageSequence = second, first


def larger_pixels_of_the_map(good: EditableSet) -> None:
    """Larger pixels: every frame begins where its slice does and ends elsewhere."""
    measures = one(good, "PM").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [4.01, 4.01]


def larger_pixels_of_the_mask(good: EditableSet) -> None:
    measures = one(good, "SEG").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [4.01, 4.01]


def map_values(good: EditableSet) -> np.ndarray:
    return np.frombuffer(one(good, "PM").FloatPixelData, "<f4").copy()


def map_with_a_nan(good: EditableSet) -> None:
    values = map_values(good)
    values[7] = np.nan
    one(good, "PM").FloatPixelData = values.tobytes()


def map_below_zero(good: EditableSet) -> None:
    values = map_values(good)
    values[7] = -0.1
    one(good, "PM").FloatPixelData = values.tobytes()


def map_constant(good: EditableSet) -> None:
    """The slices state the same, and there is no segmentation, which would differ."""
    leave_out(good, "SEG")
    for index in range(len(good.mr)):
        private(marks.UNCERTAINTY, 0.1, index)(good)
    one(good, "PM").FloatPixelData = np.full_like(map_values(good), 0.1).tobytes()


def map_of_higher_uncertainty(good: EditableSet) -> None:
    """Raise the map a little, except near the limit of the segmentation."""
    values = map_values(good)
    raised = (values > 0.0) & (np.abs(values - 0.1) > 0.01)
    one(good, "PM").FloatPixelData = np.where(raised, values + np.float32(0.002), values).tobytes()


def map_of_far_higher_uncertainty_without_mask(good: EditableSet) -> None:
    leave_out(good, "SEG", "KOS")
    one(good, "PM").FloatPixelData = (map_values(good) + np.float32(1.0)).tobytes()


def mask_with_one_wrong_voxel(good: EditableSet) -> None:
    """Invert one voxel of segment 1."""
    dataset = one(good, "SEG")
    size = dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames = dataset.PerFrameFunctionalGroupsSequence
    numbers = [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in frames]
    start = numbers.index(1) * size
    bits[start + int(bits[start : start + size].argmax())] ^= 1
    dataset.PixelData = np.packbits(bits, bitorder="little").tobytes()


def groups(report: Dataset) -> list[Dataset]:
    """Measurement groups of a report: of the volume, then of each slice."""
    return list(report.ContentSequence[-1].ContentSequence)


def item_of(group: Dataset, code: str) -> Dataset:
    return next(
        item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == code
    )


def report_with_another_similarity(good: EditableSet) -> None:
    number = item_of(groups(one(good, "SR"))[3], "SIMILARITY").MeasuredValueSequence[0]
    number.NumericValue, number.FloatingPointValue = "0.99", 0.99


def report_that_shows_another_number(good: EditableSet) -> None:
    """Change what viewers show, not the full value beside it."""
    number = item_of(groups(one(good, "SR"))[2], "MEAN-UNCERTAINTY").MeasuredValueSequence[0]
    number.NumericValue = "0.001"


def report_with_another_uncertainty(good: EditableSet) -> None:
    number = item_of(groups(one(good, "SR"))[2], "MEAN-UNCERTAINTY").MeasuredValueSequence[0]
    number.NumericValue, number.FloatingPointValue = "0.001", 0.001


def report_with_another_exemplar(good: EditableSet) -> None:
    item_of(groups(one(good, "SR"))[3], "EXEMPLAR").TextValue = "f" * 32


def report_that_calls_it_measured(good: EditableSet) -> None:
    item_of(groups(one(good, "SR"))[3], "POSITION-KIND").ConceptCodeSequence[
        0
    ].CodeValue = "MEASURED"


def report_without_a_slice(good: EditableSet) -> None:
    one(good, "SR").ContentSequence[-1].ContentSequence.pop()


def report_with_another_bundle(good: EditableSet) -> None:
    item_of(groups(one(good, "SR"))[0], "BUNDLE-DIGEST").TextValue = "f" * 64


def report_with_a_wrong_count(good: EditableSet) -> None:
    item = item_of(groups(one(good, "SR"))[0], "SLICE-COUNT")
    item.MeasuredValueSequence[0].NumericValue = "1"


def report_with_a_predecessor(good: EditableSet) -> None:
    study = one(good, "SR").CurrentRequestedProcedureEvidenceSequence[0]
    one(good, "SR").PredecessorDocumentsSequence = [study]


def map_without_unit(good: EditableSet) -> None:
    for element in one(good, "PM").iterall():
        if element.keyword == "RealWorldValueMappingSequence":
            for item in element.value:
                del item.MeasurementUnitsCodeSequence


def preview_black(good: EditableSet) -> None:
    dataset = one(good, "SC")
    dataset.PixelData = bytes(len(dataset.PixelData))


def mark_with_other_words(good: EditableSet) -> None:
    (text,) = one(good, "PR").GraphicAnnotationSequence[0].TextObjectSequence
    text.UnformattedTextValue = "T1"


def mark_not_on_one_slice(good: EditableSet) -> None:
    del one(good, "PR").GraphicAnnotationSequence[0].ReferencedImageSequence[0]


#: name to (code of the rule that finds it, damage)
DAMAGES = {
    "not a DICOM file": ("GATE-READABLE", bytes_of("SC", lambda content: b"DICM")),
    "number cut short": ("GATE-READABLE", bytes_of("SR", lambda content: content[:-2])),
    "cut short": ("GATE-STRUCTURE", bytes_of("SC", lambda content: content[:-2])),
    "patient id twice": ("GATE-STRUCTURE", bytes_of("KOS", patient_id_twice)),
    "preview in another study": ("GATE-STUDY", setting("StudyInstanceUID", FOREIGN_UID, ("SC",))),
    "report of another patient": ("GATE-PATIENT", setting("PatientID", "OTHER", ("SR",))),
    "report without mark": ("GATE-SYNTHETIC-DATA", setting("SyntheticData", None, ("SR",))),
    "key object without mark": ("GATE-SYNTHETIC-DATA", setting("SyntheticData", None, ("KOS",))),
    "map without warning": ("GATE-COMMENTS", setting("ImageComments", "a map", ("PM",))),
    "map described as T1": (
        "GATE-SERIES-DESCRIPTION",
        setting("SeriesDescription", "T1 map", ("PM",)),
    ),
    "no presentation state": ("GATE-COMPLETE", without("PR")),
    "mark with other words": ("GATE-PRESENTATION-STATE", mark_with_other_words),
    "mark not on one slice": ("GATE-PRESENTATION-STATE", mark_not_on_one_slice),
    "report marked verified": (
        "GATE-UNVERIFIED",
        setting("VerificationFlag", "VERIFIED", ("SR",)),
    ),
    "map as MR": ("GATE-MODALITY", setting("Modality", "MR", ("PM",))),
    "no map": ("GATE-COMPLETE", without("PM")),
    "no segmentation": ("GATE-COMPLETE", without("SEG")),
    "no report": ("GATE-COMPLETE", without("SR")),
    "no key object": ("GATE-COMPLETE", without("KOS")),
    "preview not requested": ("GATE-UNASKED", not_requested),
    "key object first": ("GATE-SEND-ORDER", key_object_sent_first),
    "key object of another class": ("GATE-SOP-CLASS", key_object_of_another_class),
    "key object without one object": ("GATE-KEY-OBJECT", key_object_without_one_object),
    "report without one image": ("GATE-REPORT", report_without_one_image),
    "map without one reference": ("GATE-MAP-SOURCES", map_without_one_reference),
    "map frames exchanged": ("GATE-MAP-FRAMES", map_frame_of_the_next_slice),
    "map of larger pixels": ("GATE-MAP-GRID", larger_pixels_of_the_map),
    "mask of larger pixels": ("GATE-MASK-GRID", larger_pixels_of_the_mask),
    "map in another frame of reference": (
        "GATE-FRAME-OF-REFERENCE",
        setting("FrameOfReferenceUID", FOREIGN_UID, ("PM",)),
    ),
    "map not a number": ("GATE-MAP-FINITE", map_with_a_nan),
    "map below zero": ("GATE-MAP-FINITE", map_below_zero),
    "map constant": ("GATE-MAP-CONSTANT", map_constant),
    "map of higher uncertainty than the slices": ("GATE-MAP-MEAN", map_of_higher_uncertainty),
    "map far above the slices, no mask": (
        "GATE-MAP-MEAN",
        map_of_far_higher_uncertainty_without_mask,
    ),
    "mask with one wrong voxel": ("GATE-MASK", mask_with_one_wrong_voxel),
    "report with another similarity": ("GATE-REPORT-SLICES", report_with_another_similarity),
    "report that shows another number": ("GATE-REPORT-SLICES", report_that_shows_another_number),
    "report with another uncertainty": ("GATE-REPORT-SLICES", report_with_another_uncertainty),
    "report with another exemplar": ("GATE-REPORT-SLICES", report_with_another_exemplar),
    "report that calls it measured": ("GATE-REPORT-SLICES", report_that_calls_it_measured),
    "report without a slice": ("GATE-REPORT-SLICES", report_without_a_slice),
    "report with another bundle": ("GATE-REPORT-WHOLE", report_with_another_bundle),
    "report with a wrong count": ("GATE-REPORT-WHOLE", report_with_a_wrong_count),
    "report with a predecessor": ("GATE-PREDECESSOR", report_with_a_predecessor),
    "map without unit": ("GATE-MAP-UNIT", map_without_unit),
    "preview black": ("GATE-PREVIEW", preview_black),
}
