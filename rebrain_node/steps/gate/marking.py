"""Rules: every object says by itself that it is synthetic, and by whom it was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rebrain_node.domain import marks
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: kinds that hold pixels
IMAGES: Final = ("MR", "PM", "SEG", "SC")
#: a source's number beyond it is no scanner's, and counts as 0
LARGEST_SERIES_NUMBER: Final = 999_999


def _synthetic_data(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, lambda w: _unlike(w, "SyntheticData", marks.SYNTHETIC_DATA))


def _content_qualification(evidence: Evidence) -> Iterator[Breach]:
    wanted = marks.CONTENT_QUALIFICATION
    return each(evidence.of(*IMAGES), lambda w: _unlike(w, "ContentQualification", wanted))


def _image_type(evidence: Evidence) -> Iterator[Breach]:
    enhanced = evidence.mr_form == "enhanced"
    wanted = marks.ENHANCED_IMAGE_TYPE if enhanced else marks.IMAGE_TYPE
    objects = (*evidence.of(*IMAGES), *(evidence.mr if enhanced else ()))  # frames have their own
    return each(objects, lambda written: _image_type_fault(written, wanted))


def _image_type_fault(written: Written, wanted: tuple[str, ...]) -> str | None:
    found = tuple(written.dataset.get("ImageType") or ())
    if written.kind == "MR":
        return None if found == wanted else f"ImageType is {_list(found)}, not {_list(wanted)}"
    return None if found[:1] == ("DERIVED",) else f"ImageType is {_list(found)}, not DERIVED first"


def _series_description(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _series_description_fault)


def _series_description_fault(written: Written) -> str | None:
    mr = written.kind == "MR"
    prefix = marks.SERIES_DESCRIPTION_PREFIX if mr else marks.SERIES_DESCRIPTION_WORD
    found = str(written.get("SeriesDescription") or "")
    return None if found.startswith(prefix) else f"SeriesDescription does not begin with {prefix}"


def _series_number(evidence: Evidence) -> Iterator[Breach]:
    number = int(evidence.source[0].get("SeriesNumber") or 0)
    base = marks.SERIES_NUMBER_OFFSET + (number if 0 <= number <= LARGEST_SERIES_NUMBER else 0)

    def fault(written: Written) -> str | None:
        wanted = base + 100 * marks.SERIES_ORDER.index(written.kind)
        found = written.get("SeriesNumber")
        return None if found == wanted else f"SeriesNumber is {found}, not {wanted}"

    return each(evidence.written, fault)


def _manufacturer(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, lambda w: _unlike(w, "Manufacturer", marks.MANUFACTURER))


def _model_name(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, lambda w: _unlike(w, "ManufacturerModelName", marks.MODEL_NAME))


def _comments(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.of(*IMAGES), _comments_fault)


def _comments_fault(written: Written) -> str | None:
    found = str(written.get("ImageComments") or "")
    if not found.startswith(marks.COMMENT_PREFIX):
        return f"ImageComments does not begin with {marks.COMMENT_PREFIX}"
    if marks.NOT_FOR_DIAGNOSIS not in found:
        return f"ImageComments lacks the words {marks.NOT_FOR_DIAGNOSIS!r}"
    return None


def _synthesizing_equipment(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _synthesizing_equipment_fault)


def _synthesizing_equipment_fault(written: Written) -> str | None:
    value = marks.SYNTHESIZING_EQUIPMENT[0]
    items = [
        item
        for item in written.items("ContributingEquipmentSequence")
        if value in _code_values(item.get("PurposeOfReferenceCodeSequence"))
    ]
    if not items:
        return f"ContributingEquipmentSequence has no item of purpose {value}"
    missing = [k for k in ("Manufacturer", "SoftwareVersions") if not items[0].get(k)]
    return f"the item of purpose {value} lacks {', '.join(missing)}" if missing else None


def _contributing_equipment(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _contributing_equipment_fault)


def _contributing_equipment_fault(written: Written) -> str | None:
    found = {
        value
        for item in written.items("ContributingEquipmentSequence")
        for value in _code_values(item.get("PurposeOfReferenceCodeSequence"))
    }
    wanted = (marks.ACQUISITION_EQUIPMENT[0], marks.PROCESSING_EQUIPMENT[0])
    missing = [value for value in wanted if value not in found]
    return f"no contributing equipment of purpose {_list(missing)}" if missing else None


def _derivation_description(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _derivation_description_fault)


def _derivation_description_fault(written: Written) -> str | None:
    found = str(written.get("DerivationDescription") or "")
    prefix = marks.DERIVATION_PREFIX
    return None if found.startswith(prefix) else f"it does not begin with {prefix}"


def _derivation_code(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _derivation_code_fault)


def _derivation_code_fault(written: Written) -> str | None:
    codes = {
        (item.get("CodeValue"), item.get("CodingSchemeDesignator"))
        for item in written.items("DerivationCodeSequence")
    }
    if marks.DERIVATION_CODE[:2] not in codes:
        return f"DerivationCodeSequence lacks {marks.DERIVATION_CODE[0]}"
    standard = [scheme for _, scheme in codes if scheme == "DCM"]
    return None if standard else "DerivationCodeSequence has no code of the standard beside ours"


def _coding_scheme(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _coding_scheme_fault)


def _coding_scheme_fault(written: Written) -> str | None:
    named = {
        item.get("CodingSchemeDesignator")
        for item in written.items("CodingSchemeIdentificationSequence")
    }
    scheme = marks.CODING_SCHEME
    return None if scheme in named else f"CodingSchemeIdentificationSequence lacks {scheme}"


def _unverified(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.of("SR"), lambda w: _unlike(w, "VerificationFlag", "UNVERIFIED"))


def _burned_in(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, lambda w: _unlike(w, "BurnedInAnnotation", "NO"))


def _recognizable(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, lambda w: _unlike(w, "RecognizableVisualFeatures", "YES"))


def _unlike(written: Written, keyword: str, wanted: str) -> str | None:
    found = written.get(keyword)
    return None if found == wanted else f"{keyword} is {found}, not {wanted}"


def _code_values(sequence: object) -> list[str]:
    return [str(item.get("CodeValue")) for item in sequence or ()]  # type: ignore[attr-defined]


def _list(values: object) -> str:
    return "\\".join(str(value) for value in values) or "absent"  # type: ignore[attr-defined]


RULES: Final = (
    Rule(
        "GATE-SYNTHETIC-DATA",
        "Every object carries Synthetic Data (0008,001C) = YES.",
        _synthetic_data,
    ),
    Rule(
        "GATE-CONTENT-QUALIFICATION",
        "Every image carries Content Qualification (0018,9004) = RESEARCH.",
        _content_qualification,
    ),
    Rule(
        "GATE-IMAGE-TYPE",
        "Image Type of the MR series is exactly that of a synthetic image; no image is ORIGINAL.",
        _image_type,
    ),
    Rule(
        "GATE-SERIES-DESCRIPTION",
        "Every Series Description begins with the word that warns.",
        _series_description,
    ),
    Rule(
        "GATE-SERIES-NUMBER",
        "Series Numbers lie 9000 above the source's, 100 apart by kind.",
        _series_number,
    ),
    Rule("GATE-MANUFACTURER", "Manufacturer is ours, never the scanner's.", _manufacturer),
    Rule("GATE-MODEL-NAME", "Manufacturer's Model Name says synthetic.", _model_name),
    Rule(
        "GATE-COMMENTS",
        "Image Comments of every image say SYNTHETIC and not for diagnosis.",
        _comments,
    ),
    Rule(
        "GATE-SYNTHESIZING-EQUIPMENT",
        "The model stands as Synthesizing Equipment (109100) with maker and version.",
        _synthesizing_equipment,
    ),
    Rule(
        "GATE-CONTRIBUTING-EQUIPMENT",
        "The CT scanner (109101) and the node (109102) stand as contributing equipment.",
        _contributing_equipment,
    ),
    Rule(
        "GATE-DERIVATION-DESCRIPTION",
        "Derivation Description begins with SYNTHETIC.",
        _derivation_description,
    ),
    Rule(
        "GATE-DERIVATION-CODE",
        "Derivation Code Sequence holds our code beside one of the standard.",
        _derivation_code,
    ),
    Rule(
        "GATE-CODING-SCHEME",
        "Our private coding scheme is identified where it is used.",
        _coding_scheme,
    ),
    Rule("GATE-UNVERIFIED", "The report is UNVERIFIED: nobody has read it.", _unverified),
    Rule(
        "GATE-BURNED-IN",
        "Burned In Annotation of every MR slice is NO: no text over anatomy.",
        _burned_in,
    ),
    Rule(
        "GATE-RECOGNIZABLE",
        "Recognizable Visual Features is YES: a face can be drawn from the volume.",
        _recognizable,
    ),
)
