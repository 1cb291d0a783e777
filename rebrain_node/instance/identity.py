"""Whether instances belong to one patient, one study, one series: the 14 fields of hazard H1."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding

#: equal on all instances of a series (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.4.1, C.12.1)
IDENTITY_FIELDS = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SOPClassUID",
)

#: of these, what tells two patients apart among the instances of one study
_PATIENT_FIELDS = ("PatientID", "PatientName", "PatientBirthDate")


def judge_identity(instances: Sequence[Dataset]) -> tuple[Finding, ...]:
    """Find identity fields that differ between instances which claim to be one series.

    An empty field equals an absent one; a filled one equals only the same text. The sentence
    names the fields, never a value.
    """
    mixed = [field for field in IDENTITY_FIELDS if len(_values(instances, field)) > 1]
    return (_mixed(mixed, "slices of the series"),) if mixed else ()


def judge_patients(instances: Sequence[Dataset]) -> tuple[Finding, ...]:
    """Find out whether one study holds instances of more than one patient.

    Empty fields are no contradiction here: secondary objects of a study often leave some out.
    """
    mixed = [field for field in _PATIENT_FIELDS if len(_values(instances, field) - {""}) > 1]
    return (_mixed(mixed, "series of the study"),) if mixed else ()


def _mixed(fields: Sequence[str], what: str) -> Finding:
    return Finding(
        code="ID-MIXED",
        sentence=(
            f"the {what} differ in {', '.join(fields)}: they may belong to two patients or "
            "examinations; correct the identity at the source and send again"
        ),
        value=", ".join(fields),
        limit="equal",
    )


def _values(instances: Sequence[Dataset], keyword: str) -> set[str]:
    return {_text(instance, keyword) for instance in instances}


def _text(instance: Dataset, keyword: str) -> str:
    """Return the value without what PS3.5 6.2 calls insignificant: padding, empty components."""
    value = instance.get(keyword)
    return "" if value is None else str(value).strip(" \0").rstrip("^=")
