"""Rules: every object states that it is synthetic, and none claims to come from a scanner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.steps.gate.context import Context, WrittenObject
from rebrain_node.steps.gate.rules import (
    ALL,
    ALL_AND_FRAMES,
    IMAGES,
    IMAGES_AND_FRAMES,
    MR_AND_FRAMES,
    REPORT,
    SLICES,
    expect_equal,
    rule,
)

#: a larger number of the source is not a scanner's, and counts as 0
LARGEST_SERIES_NUMBER: Final = 999_999
#: SOP class and Modality of each kind (PS3.4 B.5, PS3.3 C.7.3.1.1.1)
CLASSES: Final = {
    "MR": ("1.2.840.10008.5.1.4.1.1.4", "MR"),
    "PM": ("1.2.840.10008.5.1.4.1.1.30", "OT"),
    "SEG": ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
    "SC": ("1.2.840.10008.5.1.4.1.1.7", "OT"),
    "PR": ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
    "SR": ("1.2.840.10008.5.1.4.1.1.88.34", "SR"),
    "KOS": ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
}
ENHANCED_MR: Final = "1.2.840.10008.5.1.4.1.1.4.1"
#: what only an MR scanner can know (PS3.3 C.8.3.1, C.8.13): never present, not even empty
MR_ACQUISITION: Final = (
    "MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "ReceiveCoilName",
    "TransmitCoilName", "SAR", "dBdt", "B1rms", "PulseSequenceName", "SequenceName",
    "NumberOfAverages", "FlipAngle", "PixelBandwidth", "PercentSampling",
    "PercentPhaseFieldOfView", "AcquisitionMatrix", "InPlanePhaseEncodingDirection",
    "TriggerTime", "ContrastBolusAgent",
)  # fmt: skip
#: what describes the X-ray acquisition of the CT: not to be copied
CT_ACQUISITION: Final = (
    "KVP", "XRayTubeCurrent", "Exposure", "ExposureTime", "CTDIvol", "ConvolutionKernel",
    "GantryDetectorTilt", "FilterType", "GeneratorPower", "FocalSpots", "RotationDirection",
    "ReconstructionDiameter", "RescaleType",
)  # fmt: skip
#: required by the MR Image module but empty here (type 2, PS3.3 C.8.3.1)
TIMINGS: Final = (
    "RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "EchoNumbers",
)  # fmt: skip
DEVICE: Final = ("StationName", "DeviceUID", "GantryID")


@rule("GATE-SYNTHETIC-DATA", "Synthetic Data (0008,001C) is YES.", on=ALL)
def _synthetic_data(obj: WrittenObject, _: Context) -> str | None:
    """Other software recognises synthetic objects by it, our loop guard included."""
    return expect_equal(obj, "SyntheticData", marks.SYNTHETIC_DATA)


@rule("GATE-CONTENT-QUALIFICATION", "Content Qualification (0018,9004) is RESEARCH.", on=IMAGES)
def _content_qualification(obj: WrittenObject, _: Context) -> str | None:
    """Viewers and archives separate research images by it."""
    return expect_equal(obj, "ContentQualification", marks.CONTENT_QUALIFICATION)


@rule(
    "GATE-IMAGE-TYPE",
    "Image Type begins with DERIVED; that of the MR is exactly the one defined for synthetic MR.",
    on=IMAGES_AND_FRAMES,
)
def _image_type(obj: WrittenObject, context: Context) -> str | None:
    """Hanging protocols and selection rules look for ORIGINAL and PRIMARY."""
    enhanced = context.mr_form == "enhanced"
    expected = marks.ENHANCED_IMAGE_TYPE if enhanced else marks.IMAGE_TYPE
    found = tuple(obj.dataset.get("ImageType") or ())
    if obj.kind == "MR":
        if found == expected:
            return None
        return f"ImageType is {_joined(found)}, not {_joined(expected)}"
    return None if found[:1] == ("DERIVED",) else f"ImageType is {_joined(found)}, not DERIVED"


@rule(
    "GATE-SERIES-DESCRIPTION",
    "Series Description begins with SYNTH, that of the MR with SYNTH MR T1.",
    on=ALL,
)
def _series_description(obj: WrittenObject, _: Context) -> str | None:
    """It is often all that a list of series shows."""
    mr = obj.kind == "MR"
    prefix = marks.SERIES_DESCRIPTION_PREFIX if mr else marks.SERIES_DESCRIPTION_WORD
    found = str(obj.get("SeriesDescription") or "")
    return None if found.startswith(prefix) else f"SeriesDescription does not begin with {prefix}"


@rule(
    "GATE-SERIES-NUMBER",
    "Series Number is the source's plus 9000, and 100 more for each kind in the order of sending.",
    on=ALL,
)
def _series_number(obj: WrittenObject, context: Context) -> str | None:
    """The series sorts after those of the scanner and is recognised as belonging to its source."""
    source = int(context.source[0].get("SeriesNumber") or 0)
    base = marks.SERIES_NUMBER_OFFSET + (source if 0 <= source <= LARGEST_SERIES_NUMBER else 0)
    expected = base + 100 * marks.SERIES_ORDER.index(obj.kind)
    found = obj.get("SeriesNumber")
    return None if found == expected else f"SeriesNumber is {found}, not {expected}"


@rule("GATE-MANUFACTURER", "Manufacturer is rebrain-node, not the scanner's.", on=ALL)
def _manufacturer(obj: WrittenObject, _: Context) -> str | None:
    """No scanner's protocol or correction may be applied to it."""
    return expect_equal(obj, "Manufacturer", marks.MANUFACTURER)


@rule("GATE-MODEL-NAME", "Manufacturer's Model Name is REBRAIN synthetic MR.", on=ALL)
def _model_name(obj: WrittenObject, _: Context) -> str | None:
    """Viewers show it in the image overlay."""
    return expect_equal(obj, "ManufacturerModelName", marks.MODEL_NAME)


@rule(
    "GATE-COMMENTS", 'Image Comments begin with SYNTHETIC and say "not for diagnosis".', on=IMAGES
)
def _comments(obj: WrittenObject, _: Context) -> str | None:
    """The comment stays with a single exported image."""
    found = str(obj.get("ImageComments") or "")
    if not found.startswith(marks.COMMENT_PREFIX):
        return f"ImageComments does not begin with {marks.COMMENT_PREFIX}"
    if marks.NOT_FOR_DIAGNOSIS not in found:
        return f"ImageComments does not contain {marks.NOT_FOR_DIAGNOSIS!r}"
    return None


@rule(
    "GATE-SYNTHESIZING-EQUIPMENT",
    "Contributing Equipment (109100) names the model's manufacturer and version.",
    on=SLICES,
)
def _synthesizing_equipment(obj: WrittenObject, _: Context) -> str | None:
    """Tells which model made the image, so that it can be recalled."""
    purpose = marks.SYNTHESIZING_EQUIPMENT[0]
    item = _equipment(obj).get(purpose)
    if item is None:
        return f"ContributingEquipmentSequence has no item of purpose {purpose}"
    missing = [k for k in ("Manufacturer", "SoftwareVersions") if not item.get(k)]
    return f"the item of purpose {purpose} lacks {', '.join(missing)}" if missing else None


@rule(
    "GATE-CONTRIBUTING-EQUIPMENT",
    "Contributing Equipment names the CT scanner (109101) and the node (109102).",
    on=SLICES,
)
def _contributing_equipment(obj: WrittenObject, _: Context) -> str | None:
    """Documents the chain from the scanner to the image."""
    found = _equipment(obj)
    expected = (marks.ACQUISITION_EQUIPMENT[0], marks.PROCESSING_EQUIPMENT[0])
    missing = [value for value in expected if value not in found]
    return f"no contributing equipment of purpose {_joined(missing)}" if missing else None


@rule("GATE-DERIVATION-DESCRIPTION", "Derivation Description begins with SYNTHETIC.", on=SLICES)
def _derivation_description(obj: WrittenObject, _: Context) -> str | None:
    """Viewers show it as the origin of the image."""
    found = str(obj.get("DerivationDescription") or "")
    prefix = marks.DERIVATION_PREFIX
    return None if found.startswith(prefix) else f"it does not begin with {prefix}"


@rule(
    "GATE-DERIVATION-CODE",
    "Derivation Code Sequence contains our code and one of the standard.",
    on=SLICES,
)
def _derivation_code(obj: WrittenObject, _: Context) -> str | None:
    """States the origin of the image in a form that software can read."""
    codes = {
        (item.get("CodeValue"), item.get("CodingSchemeDesignator"))
        for item in obj.items("DerivationCodeSequence")
    }
    if marks.DERIVATION_CODE[:2] not in codes:
        return f"DerivationCodeSequence lacks {marks.DERIVATION_CODE[0]}"
    standard = [scheme for _, scheme in codes if scheme == "DCM"]
    return None if standard else "DerivationCodeSequence has no code of the standard"


@rule(
    "GATE-CODING-SCHEME",
    "Coding Scheme Identification Sequence identifies our private coding scheme.",
    on=SLICES,
)
def _coding_scheme(obj: WrittenObject, _: Context) -> str | None:
    """A private code has no meaning without its scheme."""
    identified = {
        item.get("CodingSchemeDesignator")
        for item in obj.items("CodingSchemeIdentificationSequence")
    }
    scheme = marks.CODING_SCHEME
    return None if scheme in identified else f"CodingSchemeIdentificationSequence lacks {scheme}"


@rule("GATE-UNVERIFIED", "Verification Flag of the report is UNVERIFIED.", on=REPORT)
def _unverified(obj: WrittenObject, _: Context) -> str | None:
    """A verified report has a reader who is responsible for it; nobody has read this one."""
    return expect_equal(obj, "VerificationFlag", "UNVERIFIED")


@rule("GATE-BURNED-IN", "Burned In Annotation is NO.", on=SLICES)
def _burned_in(obj: WrittenObject, _: Context) -> str | None:
    """No text may cover anatomy, and archives treat images with burned-in text differently."""
    return expect_equal(obj, "BurnedInAnnotation", "NO")


@rule("GATE-RECOGNIZABLE", "Recognizable Visual Features is YES.", on=SLICES)
def _recognizable(obj: WrittenObject, _: Context) -> str | None:
    """A face can be rendered from the volume; whoever exports it for research must know."""
    return expect_equal(obj, "RecognizableVisualFeatures", "YES")


@rule("GATE-SOP-CLASS", "SOP Class UID is that of the kind of object.", on=ALL)
def _sop_class(obj: WrittenObject, context: Context) -> str | None:
    """Viewers choose the tool for an object by its SOP class."""
    expected = CLASSES[obj.kind][0]
    if obj.kind == "MR" and context.mr_form == "enhanced":
        expected = ENHANCED_MR
    found = str(obj.get("SOPClassUID"))
    return None if found == expected else f"its SOP class is {found}"


@rule("GATE-MODALITY", "Modality is that of the kind of object.", on=ALL)
def _modality(obj: WrittenObject, _: Context) -> str | None:
    """Viewers choose layout and hanging protocol by it."""
    return expect_equal(obj, "Modality", CLASSES[obj.kind][1])


@rule(
    "GATE-SCANNING-SEQUENCE",
    "Scanning Sequence is RM (research mode) and Sequence Variant NONE; Acquisition Contrast of "
    "an Enhanced MR is UNKNOWN.",
    on=MR_AND_FRAMES,
)
def _scanning_sequence(obj: WrittenObject, _: Context) -> str | None:
    """The standard's values where no clinical pulse sequence was used."""
    if obj.get("SOPClassUID") == ENHANCED_MR:
        contrast = obj.get("AcquisitionContrast")
        return None if contrast == "UNKNOWN" else f"Acquisition Contrast is {contrast}"
    found = obj.get("ScanningSequence"), obj.get("SequenceVariant")
    expected = ("RM", "NONE")
    if found == expected:
        return None
    return f"scanning sequence and variant are {found}, not {expected}"


@rule(
    "GATE-TIMINGS",
    "Repetition, echo and inversion time, echo train length and echo numbers are empty.",
    on=SLICES,
)
def _timings(obj: WrittenObject, _: Context) -> str | None:
    """A number would be read and used as a measurement."""
    return _expect_no_value(obj, TIMINGS)


@rule(
    "GATE-MAGNET",
    "No attribute of an MR acquisition (field strength, coil, pulse sequence) is present.",
    on=ALL_AND_FRAMES,
)
def _magnet(obj: WrittenObject, _: Context) -> str | None:
    """There was no MR scanner."""
    return _found(k for k in MR_ACQUISITION if k in obj.dataset)


@rule("GATE-TUBE", "No attribute of the CT's X-ray acquisition is present.", on=ALL_AND_FRAMES)
def _tube(obj: WrittenObject, _: Context) -> str | None:
    """Dose registers count the exposures they find."""
    return _found(k for k in CT_ACQUISITION if k in obj.dataset)


@rule("GATE-DEVICE", "Station Name, Device UID and Gantry ID are empty.", on=SLICES)
def _device(obj: WrittenObject, _: Context) -> str | None:
    """Usage statistics of scanners count stations."""
    return _expect_no_value(obj, DEVICE)


def _expect_no_value(obj: WrittenObject, keywords: Iterable[str]) -> str | None:
    return _found(k for k in keywords if k in obj.dataset and not obj.dataset[k].is_empty)


def _found(keywords: Iterable[str]) -> str | None:
    present = ", ".join(keywords)
    return f"it has {present}" if present else None


def _equipment(obj: WrittenObject) -> dict[str, Dataset]:
    """First item of Contributing Equipment Sequence of each purpose, by code value."""
    found: dict[str, Dataset] = {}
    for item in obj.items("ContributingEquipmentSequence"):
        for code in item.get("PurposeOfReferenceCodeSequence") or ():
            found.setdefault(str(code.get("CodeValue")), item)
    return found


def _joined(values: Iterable[str]) -> str:
    return "\\".join(str(value) for value in values) or "absent"
