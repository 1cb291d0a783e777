"""Whether instances belong to one patient, one study, one series: the 14 fields of hazard H1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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

#: of these, what names the patient, and what the examination; the others describe the series
_OF_THE_PATIENT = frozenset(IDENTITY_FIELDS[:5])
_OF_THE_STUDY = frozenset(IDENTITY_FIELDS[5:10])
#: of these, what tells two patients apart among the instances of one study
_PATIENT_FIELDS = ("PatientID", "PatientBirthDate")
#: parts a name into its components (PS3.5 6.2.1), and whatever is written in their place
_NAME_PARTS = re.compile(r"[\W_]+")


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
    Another spelling of the name is a flag, where Patient ID and birth date say that it is one
    patient, or where the names have the same parts.
    """
    values = {field: _values(instances, field) - {""} for field in _PATIENT_FIELDS}
    mixed = [field for field, found in values.items() if len(found) > 1]
    names = _values(instances, "PatientName") - {""}
    if len(names) > 1 and not (_are_one(names) or (not mixed and all(values.values()))):
        mixed.append("PatientName")
    if mixed:
        return (_mixed(mixed, "series of the study"),)
    return (_NAME_OTHERWISE,) if _differ_between_series(instances) else ()


def _differ_between_series(instances: Sequence[Dataset]) -> bool:
    """Whether the series of a study name the patient otherwise; within one series it is mixed."""
    by_series: dict[str, list[Dataset]] = {}
    for instance in instances:
        by_series.setdefault(_text(instance, "SeriesInstanceUID"), []).append(instance)
    names = {frozenset(_values(held, "PatientName") - {""}) for held in by_series.values()}
    return len(names - {frozenset()}) > 1


_NAME_OTHERWISE = Finding(
    code="ID-NAME",
    sentence=(
        "another object of the study writes Patient's Name (0010,0010) otherwise, while Patient ID "
        "and birth date do not differ; the name of the CT series is used. Make the names equal in "
        "the archive"
    ),
    severity="flag",
    value="otherwise",
    limit="equal",
)


def _are_one(names: set[str]) -> bool:
    """Whether names are one name in different spelling: case, order and punctuation aside.

    Of a name in several scripts one component group is enough (PS3.5 6.2.1.2).
    """
    spelled = [
        {frozenset(_NAME_PARTS.split(group.casefold())) - {""} for group in name.split("=")}
        for name in names
    ]
    return bool(frozenset.intersection(*map(frozenset, spelled)) - {frozenset()})


def judge_named(instances: Sequence[Dataset]) -> Iterator[Finding]:
    """Find a series that names no patient: an archive would file CT and result at random."""
    if any(_values(instances, "PatientID") - {""}):
        return
    nobody = not _values(instances, "PatientName") - {""}
    what = "Patient ID (0010,0020) and Patient's Name (0010,0010) are" if nobody else (
        "Patient ID (0010,0020) is"
    )  # fmt: skip
    yield Finding(
        code="ID-EMPTY" if nobody else "ID-PARTIAL",
        sentence=(
            f"{what} empty: an archive that gives such images an ID of its own would file the CT "
            "and the result under two patients; enter the patient at the scanner or the archive"
        ),
        severity="refuse" if nobody else "flag",
        value="empty",
        limit="a Patient ID",
    )


def _mixed(fields: Sequence[str], what: str) -> Finding:
    return Finding(
        code="ID-MIXED",
        sentence=(f"the {what} differ in {', '.join(fields)}: {_meaning(fields)}"),
        value=", ".join(fields),
        limit="equal",
    )


def _meaning(fields: Sequence[str]) -> str:
    """Say what it means that these fields differ, and what is to be done."""
    for group, belong in ((_OF_THE_PATIENT, "patients"), (_OF_THE_STUDY, "examinations")):
        if group.intersection(fields):
            return (
                f"they may belong to two {belong}; correct the identity at the source and send "
                "again"
            )
    return "they are not one series of CT images; send each as a series of its own"


def _values(instances: Sequence[Dataset], keyword: str) -> set[str]:
    return {_text(instance, keyword) for instance in instances}


def _text(instance: Dataset, keyword: str) -> str:
    """Return the value without what PS3.5 6.2 calls insignificant: padding, empty components."""
    value = instance.get(keyword)
    return "" if value is None else str(value).strip(" \0").rstrip("^=")
