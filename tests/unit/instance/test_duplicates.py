"""200 data sets that hold an element twice, wherever it is hidden: all refused by that name.

pydicom keeps the last of two equal elements and says nothing, so that a second patient name at
the end of a file is a mix-up of patients that nobody sees (hazard H1).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from io import BytesIO

import pydicom
import pytest

from rebrain_node.errors import MalformedInstanceError
from rebrain_node.instance.scan import scan, scan_data_set
from tests.support import phantoms
from tests.support.data_sets import (
    END_OF_ITEM,
    EXPLICIT,
    IMPLICIT,
    ct,
    element,
    implicit,
    item,
)

CASES = 5000 if os.environ.get("REBRAIN_FULL") == "1" else 200
PLACES = ("beside", "later", "last", "in an item", "in an item deep down", "in an unknown sequence")
UNKNOWN, KNOWN = 0x00091010, 0x00081140  # a private element of VR UN, Referenced Image Sequence

#: what the other patient would bring: tag, VR, his value
OTHERS = (
    (0x00100010, "PN", b"OTHER^X "),
    (0x00100020, "LO", b"4711"),
    (0x00100030, "DA", b"19500101"),
    (0x0020000D, "UI", b"1.9.9\0"),
    (0x0020000E, "UI", b"1.9.9.1\0"),
    (0x00200032, "DS", b"0\\0\\99 "),
    (0x00281052, "DS", b"-2048 "),
)


@dataclass(frozen=True)
class Case:
    """One data set, and the same without the second element."""

    place: str
    syntax: str
    broken: bytes
    sound: bytes


def case(seed: int) -> Case:
    """Put one element of a small CT instance into it a second time."""
    rng = random.Random(seed)
    place, syntax = rng.choice(PLACES), rng.choice((EXPLICIT, IMPLICIT))
    elements = {**ct(), **{tag: (vr, value) for tag, vr, value in OTHERS}}
    elements[0x00100010] = ("PN", b"A^B ")
    tag, vr, value = rng.choice(OTHERS)
    if rng.random() < 0.3:
        value = elements[tag][1]  # the very same value twice is refused as well
    if place in PLACES[3:]:
        return _nested(rng, place, syntax, (elements, (tag, vr, value)))
    parts = [(t, *elements[t]) for t in sorted(elements)]
    at = [t for t, _, _ in parts].index(tag)
    where = {"beside": at + 1, "later": rng.randint(at + 1, len(parts)), "last": len(parts)}[place]
    doubled = [*parts[:where], (tag, vr, value), *parts[where:]]
    return Case(place, syntax, _join(doubled, syntax), _join(parts, syntax))


def _nested(rng, place, syntax, content) -> Case:
    """Hide the second element in an item, up to twelve deep, or in a sequence of unknown VR."""
    elements, (tag, vr, value) = content
    unknown = place == "in an unknown sequence"
    inner = IMPLICIT if unknown else syntax  # PS3.5 6.2.2 note 2
    parts = [(t, *elements[t]) for t, _, _ in OTHERS]
    at = [t for t, _, _ in parts].index(tag)
    found = []
    for members in (
        [*parts[: at + 1], *parts[at + 1 : (end := rng.randint(at + 1, len(parts)))],
         (tag, vr, value), *parts[end:]],
        parts,
    ):  # fmt: skip
        body = _join(members, inner)
        for _ in range(rng.randint(1, 11) if place == "in an item deep down" else 0):
            body = _join([(KNOWN, "SQ", item(body))], inner)
        holder = UNKNOWN if unknown else KNOWN
        wrapped = item(body, 0xFFFFFFFF) + END_OF_ITEM if rng.random() < 0.5 else item(body)
        outer = {**elements, holder: ("UN" if unknown else "SQ", wrapped)}
        if unknown and syntax == IMPLICIT:
            outer = {**elements, KNOWN: ("SQ", wrapped)}
        elif unknown:
            outer = {**elements, KNOWN: ("UN", wrapped)}
        found.append(_join([(t, *outer[t]) for t in sorted(outer)], syntax))
    return Case(place, syntax, *found)


def _join(parts, syntax) -> bytes:
    if syntax == EXPLICIT:
        return b"".join(element(*part) for part in parts)
    return b"".join(implicit(tag, value) for tag, _, value in parts)


@pytest.mark.hazard("H1")
def test_an_element_that_stands_twice_is_refused_wherever_it_is_hidden():
    taken, blamed = [], []
    for seed in range(CASES):
        made = case(seed)
        try:
            scan_data_set(made.broken, made.syntax)
            taken.append((seed, made.place, "taken"))
        except MalformedInstanceError as error:
            if error.reason != "DUP-TAG":
                taken.append((seed, made.place, error.reason))
        try:
            scan_data_set(made.sound, made.syntax)
        except MalformedInstanceError as error:
            blamed.append((seed, made.place, error.reason))
    assert taken == []
    assert blamed == []  # the same data sets without the second element pass


def test_the_cases_hide_it_in_every_place_and_syntax():
    made = [case(seed) for seed in range(200)]
    assert {one.place for one in made} == set(PLACES)
    assert {one.syntax for one in made} == {EXPLICIT, IMPLICIT}
    assert all(one.broken != one.sound for one in made)


@pytest.mark.hazard("H1")
def test_a_file_that_pydicom_reads_as_the_other_patient_s_is_refused():
    (instance,) = phantoms.head_ct(rows=4, columns=4, slice_distances_mm=(0.0,))
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    scan(buffer.getvalue())
    doubled = buffer.getvalue() + element(0x00100010, "PN", b"OTHER^X ")
    assert pydicom.dcmread(BytesIO(doubled)).PatientName == "OTHER^X"
    with pytest.raises(MalformedInstanceError, match="0010,0010") as caught:
        scan(doubled)
    assert caught.value.reason == "DUP-TAG"
