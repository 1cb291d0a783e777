"""Header values that break their representation: read leniently in one place, or refused."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom import dcmread

from rebrain_node.errors import MalformedInstanceError
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.scan import scan
from tests.support.broken_headers import encoded, header, patched
from tests.support.phantoms import enhanced_ct, head_ct


@pytest.fixture(scope="module")
def study() -> list[bytes]:
    distances = tuple(-60.0 + 8.0 * k for k in range(18))
    small = head_ct(slice_distances_mm=distances, slice_thickness_mm=8.0, manufacturer="SIEMENS")
    return [encoded(instance) for instance in small]


SERIES_NUMBER, INSTANCE_NUMBER, SLOPE = 0x00200011, 0x00200013, 0x00281053


@pytest.mark.parametrize(
    ("tag", "value", "read"),
    [
        (SERIES_NUMBER, b"2A", None),
        (SERIES_NUMBER, b"2\\3 ", None),
        (SERIES_NUMBER, b"2\\2 ", 2),
        (SERIES_NUMBER, b" 2", 2),
        (SERIES_NUMBER, b"99999999999 ", None),
        (INSTANCE_NUMBER, b"1.5 ", None),
        (INSTANCE_NUMBER, b"3.0 ", 3),
        (SLOPE, b"1\\1 ", 1.0),
        (SLOPE, b"1\\2 ", None),
        (SLOPE, b"1,0 ", None),
        (SLOPE, b"NaN ", None),
        (SLOPE, b"1_0 ", None),
        (SLOPE, b"1.00000000000000000000", 1.0),
        (0x00280030, b"0.5 ", None),
        (0x00200032, b"1\\2\\3\\4 ", None),
        (0x00180050, b"5.0 ", 5.0),
    ],
)
def test_a_number_is_read_or_left_out(
    study: list[bytes], tag: int, value: bytes, read: float | None
) -> None:
    instance = read_instance(patched(study[0], tag, value=value))
    found = instance[tag].value if tag in instance else None
    assert found == read


@pytest.mark.parametrize(("vr", "value"), [(b"US", b"\1\0"), (b"FD", bytes(8))])
def test_a_number_in_another_representation_is_left_out(
    study: list[bytes], vr: bytes, value: bytes
) -> None:
    content = patched(study[0], SLOPE, vr=vr, value=value)
    scan(content)
    assert "RescaleSlope" not in read_instance(content)


def test_a_padding_value_written_twice_is_taken_once() -> None:
    instance = head_ct(rows=64, columns=64, padding=-2048)[0]
    content = patched(encoded(instance), 0x00280120, value=struct.pack("<hh", -2048, -2048))
    assert read_instance(content).PixelPaddingValue == -2048


def test_text_in_another_representation_is_read_as_what_it_is(study: list[bytes]) -> None:
    content = patched(study[0], 0x00080016, vr=b"LO")
    scan(content)
    assert read_instance(content).SOPClassUID == dcmread(BytesIO(study[0])).SOPClassUID


def test_what_is_well_formed_is_left_as_it_was_received(study: list[bytes]) -> None:
    for content in (study[0], encoded(enhanced_ct())):
        instance, received = read_instance(content), dcmread(BytesIO(content))
        assert instance == received
        assert instance.PixelData == received.PixelData


def test_numbers_in_functional_groups_are_read_in_the_same_way() -> None:
    content = encoded(enhanced_ct())
    at = content.rindex(header(0x0020, 0x0032))  # Image Position (Patient) of the last frame
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    broken = b"A" * length
    instance = read_instance(content[: at + 8] + broken + content[at + 8 + length :])
    groups = instance.PerFrameFunctionalGroupsSequence
    assert "ImagePositionPatient" in groups[0].PlanePositionSequence[0]
    assert "ImagePositionPatient" not in groups[-1].PlanePositionSequence[0]


@pytest.mark.parametrize(
    ("tag", "vr", "reason", "sentence"),
    [
        (0x00100010, b"US", "VR", "Patient's Name (0010,0010) has the value representation US"),
        (0x0020000D, b"FD", "VR", "Study Instance UID (0020,000D)"),
        (0x00280010, b"UL", "VR", "Rows (0028,0010) has the value representation UL"),
    ],
)
def test_identity_and_pixels_in_another_representation_are_refused_at_reception(
    study: list[bytes], tag: int, vr: bytes, reason: str, sentence: str
) -> None:
    with pytest.raises(MalformedInstanceError) as caught:
        scan(patched(study[0], tag, vr=vr))
    assert caught.value.reason == reason
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "value", "fault"),
    [
        (0x00080018, b"1.2.003\0", "SOP Instance UID (0008,0018) is no UID: a component begins"),
        (0x00200052, b"1.2.A\0", "Frame of Reference UID (0020,0052) is no UID: it is not made"),
        (0x0020000E, b"1." + b"2" * 64, "it has 66 characters, at most 64"),
    ],
)
def test_a_uid_that_is_none_is_refused_with_what_is_wrong_with_it(
    study: list[bytes], tag: int, value: bytes, fault: str
) -> None:
    with pytest.raises(MalformedInstanceError) as caught:
        scan(patched(study[0], tag, value=value))
    assert caught.value.reason == "UID"
    assert fault in str(caught.value)


def test_less_than_a_frame_may_follow_the_pixels(study: list[bytes]) -> None:
    instance = dcmread(BytesIO(study[0]))
    instance.PixelData = instance.PixelData + bytes(2048)
    assert scan(encoded(instance)).number_of_frames == 1
    instance.PixelData = instance.PixelData + bytes(128 * 128 * 2)
    with pytest.raises(MalformedInstanceError, match="described are 32768"):
        scan(encoded(instance))


def test_a_file_without_the_length_of_its_meta_information_is_read(study: list[bytes]) -> None:
    content = study[0][:132] + study[0][144:]
    assert scan(content) == scan(study[0])
    assert read_instance(content).SOPInstanceUID == scan(content).sop_instance_uid
