"""Rules: nothing pretends to come from a scanner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: SOP class and Modality of each kind (PS3.4 B.5, PS3.3 C.7.3.1.1.1)
CLASSES: Final = {
    "MR": ("1.2.840.10008.5.1.4.1.1.4", "MR"),
    "PM": ("1.2.840.10008.5.1.4.1.1.30", "OT"),
    "SEG": ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
    "SC": ("1.2.840.10008.5.1.4.1.1.7", "OT"),
    "SR": ("1.2.840.10008.5.1.4.1.1.88.34", "SR"),
    "KOS": ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
}

ENHANCED_MR: Final = "1.2.840.10008.5.1.4.1.1.4.1"
#: what only a magnet can know (PS3.3 C.8.3.1, C.8.13): never present, not even empty
MAGNET: Final = (
    "MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "ReceiveCoilName",
    "TransmitCoilName", "SAR", "dBdt", "B1rms", "PulseSequenceName", "SequenceName",
    "NumberOfAverages", "FlipAngle", "PixelBandwidth", "PercentSampling",
    "PercentPhaseFieldOfView", "AcquisitionMatrix", "InPlanePhaseEncodingDirection",
    "TriggerTime", "ContrastBolusAgent",
)  # fmt: skip
#: what only an X-ray tube can know: the CT's own, not to be copied
TUBE: Final = (
    "KVP", "XRayTubeCurrent", "Exposure", "ExposureTime", "CTDIvol", "ConvolutionKernel",
    "GantryDetectorTilt", "FilterType", "GeneratorPower", "FocalSpots", "RotationDirection",
    "ReconstructionDiameter", "RescaleType",
)  # fmt: skip
#: required by the MR Image module but empty here (type 2, PS3.3 C.8.3.1)
TIMINGS: Final = (
    "RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "EchoNumbers",
)  # fmt: skip


def _class(evidence: Evidence) -> Iterator[Breach]:
    classes = {kind: sop_class for kind, (sop_class, _) in CLASSES.items()}
    if evidence.mr_form == "enhanced":
        classes["MR"] = ENHANCED_MR

    def fault(written: Written) -> str | None:
        found = str(written.get("SOPClassUID"))
        return None if found == classes[written.kind] else f"its SOP class is {found}"

    return each(evidence.written, fault)


def _modality(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _modality_fault)


def _modality_fault(written: Written) -> str | None:
    found, wanted = written.get("Modality"), CLASSES[written.kind][1]
    return None if found == wanted else f"Modality is {found}, not {wanted}"


def _scanning_sequence(evidence: Evidence) -> Iterator[Breach]:
    objects = (*evidence.mr, *evidence.of("MR"))  # an Enhanced MR says it of itself and its frames
    return each(objects, _scanning_sequence_fault)


def _scanning_sequence_fault(written: Written) -> str | None:
    if written.get("SOPClassUID") == ENHANCED_MR:
        contrast = written.get("AcquisitionContrast")
        return None if contrast == "UNKNOWN" else f"Acquisition Contrast is {contrast}"
    found = written.get("ScanningSequence"), written.get("SequenceVariant")
    wanted = ("RM", "NONE")
    return None if found == wanted else f"scanning sequence and variant are {found}, not {wanted}"


def _timings(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, lambda w: _present(w, TIMINGS, allow_empty=True))


def _magnet(evidence: Evidence) -> Iterator[Breach]:
    objects = (*evidence.mr, *evidence.written)
    return each(objects, lambda w: _present(w, MAGNET, allow_empty=False))


def _tube(evidence: Evidence) -> Iterator[Breach]:
    objects = (*evidence.mr, *evidence.written)
    return each(objects, lambda w: _present(w, TUBE, allow_empty=False))


def _device(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _device_fault)


def _device_fault(written: Written) -> str | None:
    return _present(written, ("StationName", "DeviceUID", "GantryID"), allow_empty=True)


def _present(written: Written, keywords: tuple[str, ...], *, allow_empty: bool) -> str | None:
    found = [
        keyword
        for keyword in keywords
        if keyword in written.dataset and not (allow_empty and written.dataset[keyword].is_empty)
    ]
    return f"it carries {', '.join(found)}" if found else None


RULES: Final = (
    Rule("GATE-SOP-CLASS", "Every object is of the SOP class of its kind.", _class),
    Rule("GATE-MODALITY", "Modality fits the kind of the object.", _modality),
    Rule(
        "GATE-SCANNING-SEQUENCE",
        "Scanning Sequence is RM (research mode) and Sequence Variant NONE; the contrast of an "
        "Enhanced MR is UNKNOWN.",
        _scanning_sequence,
    ),
    Rule("GATE-TIMINGS", "No repetition, echo or inversion time has a value.", _timings),
    Rule("GATE-MAGNET", "No attribute claims a magnet, coil or pulse sequence.", _magnet),
    Rule("GATE-TUBE", "No attribute of the CT's X-ray side was copied.", _tube),
    Rule("GATE-DEVICE", "No station or gantry of a scanner is claimed.", _device),
)
