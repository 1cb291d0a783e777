"""Every element that the node reads, made wrong in turn: a status or a finding, never an error."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

import rebrain_node
from rebrain_node.domain.volume import SourceVolume, SyntheticVolume
from rebrain_node.errors import MalformedInstanceError, SeriesRejectedError
from rebrain_node.instance.content import different_elements, same_content
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.rejection_note import rejection_of
from rebrain_node.instance.scan import scan
from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import judge_study
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.write import ObjectOptions, write
from rebrain_node.steps.write.source import read_source
from tests.support.broken_headers import encoded, patched
from tests.support.mutations import mutants
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

LIMITS = shipped_limits()
#: beside those of the phantom, elements that the node reads or copies
MORE = {
    "SpecificCharacterSet": "ISO_IR 100", "PatientAge": "050Y", "PatientSize": "1.8",
    "PatientWeight": "80", "AccessionNumber": "A1", "StudyDescription": "CT head",
    "ReferringPhysicianName": "A^B", "AcquisitionDate": "20200102", "AcquisitionTime": "101112",
    "ContentDate": "20200102", "ContentTime": "101112", "SeriesDate": "20200102",
    "SeriesTime": "101112", "AcquisitionNumber": "1", "GantryDetectorTilt": "0",
    "ContrastBolusAgent": "none", "ContrastBolusVolume": "0", "ContrastBolusRoute": "",
    "ContrastBolusStartTime": "", "InstitutionName": "Clinic", "StationName": "CT1",
    "SoftwareVersions": "1", "DeviceSerialNumber": "1", "ProtocolName": "head",
    "RescaleType": "HU", "PixelPaddingValue": -2048, "PixelPaddingRangeLimit": -2000,
    "WindowCenter": "40", "WindowWidth": "80", "LossyImageCompression": "00",
    "LossyImageCompressionRatio": "1", "SyntheticData": "NO", "IssuerOfPatientID": "C",
    "SliceLocation": "1", "SpacingBetweenSlices": "8", "ReconstructionDiameter": "256",
}  # fmt: skip


@pytest.fixture(scope="module")
def study() -> list[bytes]:
    distances = tuple(-60.0 + 8.0 * k for k in range(18))
    small = head_ct(slice_distances_mm=distances, slice_thickness_mm=8.0, manufacturer="SIEMENS")
    for instance in small:
        for keyword, value in MORE.items():
            setattr(instance, keyword, value)
    return [encoded(instance) for instance in small]


def corruptions(content: bytes, generator: random.Random) -> Iterator[bytes]:
    """The file with the value, the length or the representation of each element corrupted."""
    texts = [b"", b"2A", b"1.5 ", b"1\\1 ", b"1\\2 ", b"\\ ", b"99999999999999999999", b"-0",
             b"\xff\xfe", b"2020.01.02", b"10:11:12", b"1.2.003 ", b"NaN ", b"\0\0"]  # fmt: skip
    for element in dcmread(BytesIO(content), stop_before_pixels=True):
        tag = int(element.tag)
        if element.VR == "SQ" or element.VR in {"OB", "OW", "UN", "UT"}:
            continue
        for value in generator.sample(texts, 2 if element.VR in {"DS", "IS", "UI", "US"} else 1):
            yield patched(content, tag, value=value)
        for length in (3, 0xFFFF):
            yield patched(content, tag, length=length)
        vr = generator.choice([b"US", b"FD", b"IS", b"DS", b"UI", b"PN", b"AT", b"ZZ"])
        yield patched(content, tag, vr=vr)
        yield patched(content, tag, vr=b"FD", value=b"\0\0")


def outcome(content: bytes, others: list[Dataset]) -> str:
    """What the node says, from reception to what the writer takes over of the source."""
    try:
        scan(content)
    except MalformedInstanceError as error:
        return error.reason
    instances = [read_instance(content), *others]
    accepted = judge_study(instances, LIMITS).accepted
    if not accepted:
        return "refused"
    uid = accepted[0].series_instance_uid
    series = [each for each in instances if str(each.SeriesInstanceUID) == uid]
    try:
        volume: SourceVolume = assemble(series, LIMITS.geometry)
        read_source(series, volume)  # type: ignore[arg-type]  # it reads UIDs and frame alone
    except SeriesRejectedError as error:
        return error.findings[0].code
    return "taken"


@pytest.mark.filterwarnings("ignore")  # of pydicom, which ends no process
@pytest.mark.hazard("H22")
def test_every_corrupted_element_gives_a_status_or_a_finding(study: list[bytes]) -> None:
    others = [read_instance(content) for content in study[1:]]
    assert outcome(study[0], others) == "taken"
    seen = [outcome(each, others) for each in corruptions(study[0], random.Random(14))]
    assert len(seen) > 250
    assert {"taken", "refused", "VR", "LENGTH", "UID"} <= set(seen)


#: three slices of few pixels: what is tested here are headers
TINY = {
    "rows": 16, "columns": 16, "pixel_spacing_mm": (14.0, 14.0),
    "slice_distances_mm": (0.0, 12.0, 24.0), "slice_thickness_mm": 12.0,
}  # fmt: skip
MUTANTS = 2000 if os.environ.get("REBRAIN_FULL") == "1" else 60


def named_elements() -> list[str]:
    """Every element that the node names in its code: it reads it, copies it or writes it."""
    words = {
        word
        for path in Path(rebrain_node.__file__).parent.rglob("*.py")
        for word in re.findall(r'"([A-Z][A-Za-z0-9]{4,})"', path.read_text(encoding="utf-8"))
    }
    tags = {word: tag_for_keyword(word) for word in sorted(words)}
    return [w for w, tag in tags.items() if tag and 0x0002FFFF < tag < 0x7FE00000]


def taken_whole(content: bytes, original: bytes, others: list[Dataset]) -> str:
    """What becomes of an instance from reception to the written objects; `REASON` where refused."""
    try:
        scan(content)
    except MalformedInstanceError as error:
        return error.reason
    same_content(original, content)
    different_elements(content, original)
    instance = read_instance(content)
    rejection_of(instance)
    instances = [instance, *others]
    judge_study(instances, LIMITS)
    series = [each for each in instances if each.SeriesInstanceUID == instance.SeriesInstanceUID]
    try:
        assembled = assemble(series, LIMITS.geometry)
        write(
            _result_of(original, others, instance, assembled),
            series,
            provenance(),
            (),
            ObjectOptions(companions=("SR", "KOS")),
        )
    except SeriesRejectedError as error:
        return error.findings[0].code
    return "written"


def _result_of(
    original: bytes, others: list[Dataset], instance: Dataset, assembled: SourceVolume
) -> SyntheticVolume:
    """A result over the sound series, whose first instance is the one that was made wrong."""
    sound = [read_instance(original), *others]
    result = synthetic_volume(sound, rows=8, columns=8, pixel_mm=30.0, spacing_mm=40.0)
    first = sound[0].SOPInstanceUID
    uids = (instance.SOPInstanceUID if u == first else u for u in result.prepared.sop_instance_uids)
    prepared = replace(
        result.prepared,
        sop_instance_uids=tuple(map(str, uids)),
        frame_of_reference_uid=assembled.frame_of_reference_uid,
    )
    return replace(result, prepared=prepared)


@pytest.mark.filterwarnings("ignore")  # of pydicom, which ends no process
@pytest.mark.hazard("H22")
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_nothing_that_is_acknowledged_raises_later(kind: str) -> None:
    """Random elements at any depth with random values, representations and lengths."""
    instances = head_ct(**TINY) if kind == "classic" else [enhanced_ct(**TINY)]
    for instance in instances:
        for keyword, value in MORE.items():
            setattr(instance, keyword, value)
    first = encoded(instances[0])
    others = [read_instance(encoded(each)) for each in instances[1:]]
    seen = set()
    for what, content in mutants(first, named_elements(), random.Random(15), MUTANTS):
        try:
            seen.add(taken_whole(content, first, others))
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}") from error
    assert {"written", "VR"} <= seen
