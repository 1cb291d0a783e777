"""Every element that the node reads, made wrong in turn: a status or a finding, never an error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import MalformedInstanceError, SeriesRejectedError
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.scan import scan
from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import judge_study
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.write.source import read_source
from tests.support.broken_headers import encoded, patched
from tests.support.phantoms import head_ct

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
