"""Nothing in an instance is trusted before its structure is; each way to break it has a name."""

import logging
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebrain_node.errors import MalformedInstanceError
from rebrain_node.instance import elements as element_limits
from rebrain_node.instance.scan import require_class, require_instance, scan, scan_data_set
from tests.support.data_sets import (
    END_OF_ITEM,
    END_OF_SEQUENCE,
    EXPLICIT,
    IMPLICIT,
    MR,
    RLE,
    ct,
    element,
    encode,
    encode_implicit,
    fragments,
    item,
    text,
    us,
)

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
UNDEFINED = 0xFFFFFFFF


def reason(content: bytes, syntax: str = EXPLICIT) -> str:
    with pytest.raises(MalformedInstanceError) as caught:
        scan_data_set(content, syntax)
    return caught.value.reason


def sequence(content: bytes, tag: int = 0x00081140) -> bytes:
    return element(tag, "SQ", content)


def with_sequence(content: bytes) -> bytes:
    """A sound CT instance with one more sequence, in its place."""
    elements = ct()
    elements[0x00081140] = ("SQ", content)
    return encode(elements)


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = sequence(item(content))
    return content


def changed(tag: int, value: bytes) -> bytes:
    elements = ct()
    elements[tag] = (elements[tag][0] if tag in elements else "IS", value)
    return encode(elements)


def without(tag: int) -> bytes:
    elements = ct()
    del elements[tag]
    return encode(elements)


def rle(*encoded: bytes, table: bytes = b"", frames: int = 1) -> bytes:
    elements = ct()
    elements[0x00280008] = ("IS", text(str(frames)))
    del elements[0x7FE00010]
    return encode(elements) + element(
        0x7FE00010, "OB", fragments(*encoded, table=table), length=UNDEFINED
    )


@pytest.mark.parametrize(("encoding", "syntax"), [(encode, EXPLICIT), (encode_implicit, IMPLICIT)])
def test_a_sound_instance_says_who_it_is(
    encoding: Callable[[dict[int, tuple[str, bytes]]], bytes], syntax: str
) -> None:
    scanned = scan_data_set(encoding(ct()), syntax)
    assert scanned.sop_instance_uid == "1.2.3.4.1"
    assert scanned.series_instance_uid == "1.2.3.4"
    assert scanned.study_instance_uid == "1.2.3"
    assert scanned.modality == "CT"
    assert scanned.number_of_frames == 1
    assert scanned.transfer_syntax_uid == syntax


def test_sound_oddities_are_let_through() -> None:
    deep = item(nested(14))
    undefined = element(
        0x00081140, "SQ", item(b"", UNDEFINED) + END_OF_ITEM + END_OF_SEQUENCE, UNDEFINED
    )
    elements = ct()
    head = encode({tag: elements[tag] for tag in elements if tag < 0x00081140})
    tail = encode({tag: elements[tag] for tag in elements if tag > 0x00081140})
    padding = element(0xFFFCFFFC, "OB", bytes(10))
    for content in (with_sequence(deep), head + undefined + tail, encode(elements) + padding):
        assert scan_data_set(content, EXPLICIT).modality == "CT"


def test_an_instance_without_image_needs_no_pixels() -> None:
    report = ct(sop_class="1.2.840.10008.5.1.4.1.1.88.11")
    content = encode({tag: report[tag] for tag in report if tag >> 16 not in {0x0028, 0x7FE0}})
    assert scan_data_set(content, EXPLICIT).number_of_frames == 0


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("DUP-TAG", encode(ct()) + element(0x7FE00010, "OW", bytes(48))),
        ("DUP-TAG", with_sequence(item(element(0x00100010, "PN", b"A ") * 2))),
        ("DUP-TAG", encode(ct()) + element(0x00100010, "PN", b"C^D ")),
        ("TAG-ORDER", encode(ct()) + element(0x00100020, "LO", b"C^D ")),
        ("NESTING", with_sequence(item(nested(16)))),
        ("LENGTH", encode(ct())[:-1]),
        ("LENGTH", encode(ct()) + b"\xe0\x7f\x11"),
        ("LENGTH", encode(ct()) + element(0x7FE10010, "UN", b"", 100)),
        ("LENGTH", encode(ct()) + element(0x7FE10010, "OB", b"", UNDEFINED)),
        ("LENGTH", with_sequence(item(b"", 4))),
        ("VR", encode(ct()) + b"\xe1\x7f\x10\x00ZZ\0\0"),
        ("TAG", element(0x00000002, "UI", b"1.2 ") + encode(ct())),
        ("TAG", element(0x00020010, "UI", b"1.2 ") + encode(ct())),
        ("TAG", with_sequence(END_OF_ITEM)),
        ("UID", without(0x00080018)),
        ("UID", changed(0x0020000D, b"1.2..3")),
        ("UID", changed(0x0020000D, b"1.02")),
        ("UID", changed(0x0020000E, b"../../x ")),
        ("UID", changed(0x00080018, b"1.2\\1.3 ")),
        ("UID", changed(0x00080018, b"1." + b"2" * 64)),
        ("PIXEL-LENGTH", changed(0x7FE00010, bytes(46))),
        ("PIXEL-LENGTH", changed(0x7FE00010, bytes(96))),  # a frame more than described
        ("PIXEL-LENGTH", changed(0x00280008, b"2 ")),
        ("PIXEL-MISSING", without(0x7FE00010)),
        ("PIXEL-DESCRIPTION", without(0x00280010)),
        ("PIXEL-DESCRIPTION", changed(0x00280010, us(0))),
        ("PIXEL-DESCRIPTION", changed(0x00280101, us(17))),
        ("PIXEL-DESCRIPTION", changed(0x00280100, us(12))),
        ("PIXEL-DESCRIPTION", changed(0x00280008, b"-1")),
        ("PIXEL-DESCRIPTION", changed(0x00280008, b"many")),
        ("SIZE", changed(0x00280008, b"999999999 ")),
    ],
)  # fmt: skip
def test_each_broken_rule_is_refused_by_name(code: str, content: bytes) -> None:
    assert reason(content) == code


#: a standard element of each binary representation, and bytes that are no whole number of it
BROKEN_NUMBERS = [
    (0x00280106, "US", b"\1"), (0x00280106, "SS", b"\1\0\0"), (0x00186024, "SL", b"\1\0"),
    (0x00186016, "UL", b"\1\0\0\0\0\0"), (0x00189313, "FD", bytes(4)),
    (0x00189073, "FD", bytes(12)),
    (0x00189461, "FL", b"\0\0"), (0x00280009, "AT", b"\x18\0"), (0x00189461, "FL", bytes(6)),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "vr", "value"), BROKEN_NUMBERS)
def test_a_number_that_does_not_fill_its_bytes_is_refused_at_every_depth(
    tag: int, vr: str, value: bytes
) -> None:
    inner = item(element(tag, vr, value))
    for content in (
        encode({**ct(), tag: (vr, value)}),
        with_sequence(inner),
        with_sequence(item(sequence(inner))),
    ):
        assert reason(content) == "LENGTH"


def test_a_number_in_implicit_representation_is_measured_by_the_dictionary() -> None:
    assert (
        reason(encode_implicit({**ct(), 0x00280106: ("US", b"\1\0\0\0\0")}), IMPLICIT) == "LENGTH"
    )


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280106, "US", b""),  # empty
        (0x00280009, "AT", b"\x18\0\x63\x10" * 2),
        (0x00091010, "FD", b"\0\0\0"),  # private: whoever reads it knows it
        (0x00280106, "UN", b"\0\0\0"),  # may hold anything (PS3.5 6.2.2)
        (0x00180050, "DS", b"thick"),  # a text is judged by whoever reads it
    ],
)
def test_what_no_number_is_written_in_is_let_through(tag: int, vr: str, value: bytes) -> None:
    assert scan_data_set(encode({**ct(), tag: (vr, value)}), EXPLICIT).modality == "CT"


def test_an_mr_image_without_pixels_is_refused_too() -> None:
    elements = ct(sop_class=MR)
    del elements[0x7FE00010]
    assert reason(encode(elements)) == "PIXEL-MISSING"


@pytest.mark.hazard("H1")
def test_the_second_patient_name_that_pydicom_would_keep_is_refused() -> None:
    content = encode(ct()) + element(0x00100010, "PN", b"C^D ")
    assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(content), force=True).PatientName == "C^D"
    assert reason(content) == "DUP-TAG"


@pytest.mark.hazard("H1")
def test_a_duplicate_hidden_in_an_unknown_sequence_is_found() -> None:
    hidden = item(b"\x10\x00\x10\x00\x02\0\0\0A " * 2)
    elements = ct()
    elements[0x00081140] = ("UN", hidden)
    assert reason(encode(elements)) == "DUP-TAG"


def test_fragments_must_be_as_many_as_frames() -> None:
    frame = b"\x01" * 8
    both = frame, frame
    table = (0).to_bytes(4, "little") + (16).to_bytes(4, "little")
    assert scan_data_set(rle(frame), RLE).number_of_frames == 1
    assert scan_data_set(rle(*both, table=table, frames=2), RLE).number_of_frames == 2
    for content in (
        rle(*both),
        rle(frame, frames=2),
        rle(*both, table=table[:4], frames=2),
        rle(*both, table=table[:4] + b"\x0f\0\0\0", frames=2),
        rle(frame, b""),
        rle(),
        encode(ct()),
    ):
        assert reason(content, RLE) == "PIXEL-FRAMES"
    assert reason(rle(frame), EXPLICIT) == "PIXEL-FRAMES"


def test_identity_is_held_against_what_others_say() -> None:
    scanned = scan_data_set(encode(ct()), EXPLICIT)
    require_class(scanned, scanned.sop_class_uid, by="command")
    require_instance(scanned, scanned.sop_instance_uid, by="command")
    with pytest.raises(MalformedInstanceError, match="the command says") as of_class:
        require_class(scanned, MR, by="command")
    with pytest.raises(MalformedInstanceError, match="another SOP instance") as of_instance:
        require_instance(scanned, "1.2.3.4.2", by="command")
    assert (of_class.value.status, of_instance.value.status) == (0xA900, 0xC10F)


def test_more_elements_and_items_than_the_limit_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = with_sequence(item(b"") * 200)
    monkeypatch.setattr(element_limits, "MAXIMUM_ELEMENTS", 1_000)
    scan_data_set(content, EXPLICIT)
    monkeypatch.setattr(element_limits, "MAXIMUM_ELEMENTS", 100)
    assert reason(content) == "SIZE"


def test_the_memory_of_a_scan_does_not_grow_with_the_elements() -> None:
    content = with_sequence(item(element(0x00100010, "PN", bytes(100))) * 5_000)
    tracemalloc.start()
    scan_data_set(content, EXPLICIT)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_elements_that_nobody_needs_take_no_memory() -> None:
    private = {0x00090000 | number: ("LO", b"") for number in range(0x1000, 0xF000)}
    content = encode(ct() | private)
    tracemalloc.start()
    scan_data_set(content, EXPLICIT)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_messages_carry_no_value_of_the_patient() -> None:
    for content in (changed(0x0020000E, b"Mustermann"), encode(ct()) + encode(ct())):
        with pytest.raises(MalformedInstanceError) as caught:
            scan_data_set(content, EXPLICIT)
        assert "A^B" not in str(caught.value)
        assert "Mustermann" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("MR_truncated.dcm", "LENGTH"),
        ("rtplan_truncated.dcm", "LENGTH"),
        ("image_dfl.dcm", "TRANSFER-SYNTAX"),
        ("README.txt", "NOT-DICOM"),
        ("no_meta.dcm", "NOT-DICOM"),
    ],
)
def test_broken_files_of_pydicom_are_refused(name: str, code: str) -> None:
    with pytest.raises(MalformedInstanceError) as caught:
        scan((PYDICOM_FILES / name).read_bytes())
    assert caught.value.reason == code


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
        "MR_small_implicit.dcm", "reportsi.dcm", "JPEG2000.dcm",
        "SC_ybr_full_422_uncompressed.dcm", "rtdose.dcm",
        "liver_1frame.dcm",
    ],
)  # fmt: skip
def test_sound_files_of_pydicom_pass(name: str) -> None:
    scan((PYDICOM_FILES / name).read_bytes())


def test_real_studies_pass(shared_data: Path) -> None:
    paths = [path for path in (shared_data / "ct_toshiba_head_study").rglob("*") if path.is_file()]
    passed = [scan(path.read_bytes()) for path in paths if path.read_bytes()[128:132] == b"DICM"]
    assert len(passed) > 100
    scan(next((shared_data / "dicom_oddities" / "enhanced_ct").glob("*.dcm")).read_bytes())


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "reportsi.dcm"]
)
def test_every_truncation_is_refused(name: str) -> None:
    content = (PYDICOM_FILES / name).read_bytes()
    generator = random.Random(1)
    passed = 0
    for length in generator.sample(range(len(content)), 100):
        try:
            scan(content[:length])
            passed += 1
        except MalformedInstanceError:
            pass
    assert passed <= (100 if name == "reportsi.dcm" else 4)  # only whole trailing elements may go


def _mutate(content: bytearray, generator: random.Random) -> bytes:
    for _ in range(generator.randint(1, 8)):
        at = generator.randrange(132, len(content))
        match generator.randrange(4):
            case 0:
                content[at] = generator.randrange(256)
            case 1:
                del content[at : at + generator.randint(1, 16)]
            case 2:
                content[at:at] = content[at - generator.randint(1, 100) : at]
            case _:
                content[at : at + 4] = generator.choice(
                    [b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0\0\0\0"]
                )
    return bytes(content)


def _hammer(count: int) -> None:
    sources = [
        (PYDICOM_FILES / name).read_bytes()
        for name in ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "reportsi.dcm")
    ]
    for seed in range(count):
        generator = random.Random(seed)
        content = _mutate(bytearray(sources[seed % len(sources)]), generator)
        begun = time.monotonic()
        try:
            scan(content)
        except MalformedInstanceError:
            pass
        except Exception:
            logging.getLogger(__name__).exception("seed %d", seed)
            raise
        assert time.monotonic() - begun < 5, f"seed {seed}"


def test_mutated_files_are_refused_or_pass_and_nothing_else_happens() -> None:
    _hammer(1_000)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_hundred_thousand_mutated_files_are_refused_or_pass() -> None:
    _hammer(100_000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT, RLE, "1.2.840.10008.1.2.2"]))
def test_arbitrary_bytes_are_refused(content: bytes, syntax: str) -> None:
    with pytest.raises(MalformedInstanceError):
        scan_data_set(content, syntax)
