"""The same UID implies the same bytes: a UID is a function of all that the bytes depend on."""

from __future__ import annotations

from dataclasses import fields

import pytest
from pydicom.uid import UID

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import Provenance
from rebrain_node.domain.marks import UID_ROOT
from rebrain_node.steps.write import AuditAnchor, ObjectOptions
from rebrain_node.steps.write.identity import DerivedUids, derived_uid
from tests.support.synthetic_volumes import provenance

KINDS = ("MR", "PM", "SEG", "SC", "PR", "SR", "KOS")
HEAD = AuditAnchor(sequence=7, sha256="a" * 64)


def all_uids(uids: DerivedUids) -> set[str]:
    names = {uids.instance("MR", frame) for frame in range(5)}
    names |= {uids.series(kind) for kind in KINDS}
    names |= {uids.instance(kind) for kind in KINDS[1:]}
    return names | {uids.other("PM", "dimension organisation")}


@pytest.mark.hazard("H24")
def test_uids_are_valid_and_apart():
    names = all_uids(DerivedUids.of(provenance(), (), ObjectOptions()))
    assert len(names) == 19
    assert all(UID(name).is_valid and name.startswith(UID_ROOT) for name in names)


def test_uids_come_out_the_same_again():
    first, again = (
        all_uids(DerivedUids.of(provenance(), (), ObjectOptions(), HEAD)) for _ in range(2)
    )
    assert first == again


def test_a_uid_never_changes_between_versions_of_this_software():
    assert derived_uid("bundle", "2" * 64) == "2.25.119755696926078481696674343833297545341"


@pytest.mark.parametrize("field", [field.name for field in fields(Provenance)])
def test_each_part_of_the_provenance_gives_other_uids(field):
    changed = 2 if field == "revision" else "other"
    one = DerivedUids.of(provenance(), (), ObjectOptions())
    other = DerivedUids.of(provenance(**{field: changed}), (), ObjectOptions())
    assert not all_uids(one) & all_uids(other)


@pytest.mark.parametrize(
    "options",
    [
        ObjectOptions(companions=("SR",)),
        ObjectOptions(mr="enhanced"),
        ObjectOptions(map_precision="float32"),
        ObjectOptions(preview_banner="full"),
        ObjectOptions(uncertain_above=0.2),
    ],
)
def test_each_option_gives_other_uids(options):
    one = DerivedUids.of(provenance(), (), ObjectOptions())
    assert not all_uids(one) & all_uids(DerivedUids.of(provenance(), (), options))


def test_a_finding_gives_other_uids():
    flag = Finding(code="AGE", sentence="too young", severity="flag")
    one = DerivedUids.of(provenance(), (), ObjectOptions())
    assert not all_uids(one) & all_uids(DerivedUids.of(provenance(), (flag,), ObjectOptions()))


def test_the_audit_anchor_renames_only_the_objects_that_contain_it():
    one = DerivedUids.of(provenance(), (), ObjectOptions())
    other = DerivedUids.of(provenance(), (), ObjectOptions(), HEAD)
    for kind in KINDS:
        assert (one.instance(kind) == other.instance(kind)) == (kind not in {"SR", "KOS"})


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_that_is_no_ratio_is_refused(limit):
    with pytest.raises(ValueError, match="uncertain_above"):
        ObjectOptions(uncertain_above=limit)
