"""Text of the source is copied, not typed again; dates are the source's; loss is remembered."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGLosslessSV1

from rebrain_node.errors import SeriesRejectedError
from rebrain_node.steps.write.encoding import copy_text, plain
from rebrain_node.steps.write.source import NO_DATE, read_source
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import synthetic_volume

TINY = {
    "rows": 8,
    "columns": 8,
    "pixel_spacing_mm": (28.0, 28.0),
    "slice_distances_mm": (0.0, 6.0, 12.0),
}


def source_of(instances: list[Dataset]):
    return read_source(instances, synthetic_volume(instances).prepared)


def as_read(dataset: Dataset) -> Dataset:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return pydicom.dcmread(BytesIO(buffer.getvalue()), force=True)


ALPHABETS = {
    "ISO_IR 100": "aZ 09-^äöüß",
    "ISO_IR 126": "aZ^ΔιονυσςΩ",
    "ISO_IR 127": "aZ^قبانيلزر",
    "GB18030": "aZ^王小东龙",
    "ISO_IR 192": "aZ^王山홍ΔقüЛ",
    "\\ISO 2022 IR 87": "aZ^山田太郎やまだ",
    "\\ISO 2022 IR 149": "aZ^洪吉洞홍길동",
}
TEXTS = st.sampled_from(sorted(ALPHABETS)).flatmap(
    lambda charset: st.tuples(
        st.just(charset), st.text(st.sampled_from(ALPHABETS[charset]), max_size=12)
    )
)


@pytest.mark.hazard("H2")
@given(TEXTS, st.sampled_from(["PatientName", "StudyDescription"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_text_is_copied_byte_by_byte_also_after_it_was_looked_at(case, keyword, looked_at):
    charset, text = case
    dataset = Dataset()
    dataset.SpecificCharacterSet = charset.split("\\")
    setattr(dataset, keyword, text)
    read = as_read(dataset)
    received = read.get_item(keyword).value or b""
    if looked_at:
        _ = str(read[keyword].value)
    copied = copy_text(read, keyword)
    assert copied.value.rstrip(b" ") == received.rstrip(b" ")
    assert len(copied.value) % 2 == 0


def test_text_outside_its_character_set_is_refused_not_replaced():
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyDescription = "頭部"
    with pytest.raises(SeriesRejectedError, match="CHARSET: StudyDescription") as caught:
        copy_text(dataset, "StudyDescription")
    assert "頭" not in str(caught.value)


def test_undeclared_bytes_are_still_copied_as_they_are():
    dataset = Dataset()
    dataset.StudyDescription = "Sch\xe4del"
    read = as_read(dataset)
    _ = read.StudyDescription
    assert copy_text(read, "StudyDescription").value == b"Sch\xe4del "


def test_our_own_words_are_ascii_without_a_value_separator():
    assert plain("tilt 10° \\ x", 64).isascii()
    assert "\\" not in plain("a\\b", 64)
    assert plain("x" * 100, 64) == "x" * 64


def test_a_name_of_several_values_keeps_them():
    instances = head_ct(**TINY, extra={"OtherPatientNames": ["One^A", "Two^B"]})
    assert source_of(instances).identity.get_item("OtherPatientNames").value == b"One^A\\Two^B "


@pytest.mark.hazard("H23")
@pytest.mark.parametrize(
    ("removed", "date", "time"),
    [
        ((), "20260102", "101500"),
        (("AcquisitionDate", "AcquisitionTime"), "20260102", "101600"),
        (("AcquisitionTime",), "20260102", NO_DATE[1]),
        (("AcquisitionDate", "ContentDate", "SeriesDate"), "20260102", "101000"),
        (("AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate"), *NO_DATE),
    ],
)
def test_the_content_date_is_the_source_s(removed, date, time):
    instances = head_ct(**TINY)
    for instance in instances:
        for keyword in removed:
            instance.pop(keyword)
    source = source_of(instances)
    assert (source.content_date, source.content_time) == (date, time)


@pytest.mark.hazard("H23")
@pytest.mark.parametrize("nonsense", ["2026013", "20261301", "99991201"])
def test_a_date_that_is_none_is_passed_over(nonsense):
    instances = head_ct(**TINY)
    for instance in instances:
        instance._dict.pop(pydicom.tag.Tag("AcquisitionDate"))
        instance[pydicom.tag.Tag("AcquisitionDate")] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag("AcquisitionDate"), "DA", 8, nonsense.encode(), 0, False, True
        )
    assert source_of(instances).content_time == "101600"


@pytest.mark.parametrize(("number", "expected"), [(7, 7), (None, 0), (-3, 0), (2_000_000_000, 0)])
def test_the_series_number_is_kept_within_reason(number, expected):
    instances = head_ct(**TINY, extra={"SeriesNumber": number})
    assert source_of(instances).series_number == expected


@pytest.mark.parametrize(
    ("syntax", "flag", "expected"),
    [
        (None, None, "00"),
        (None, "01", "01"),
        (JPEGBaseline8Bit, None, "01"),
        (JPEGBaseline8Bit, "00", "01"),
        (JPEG2000, None, "01"),
        (JPEG2000, "00", "00"),
        (JPEGLosslessSV1, None, "00"),
        (JPEGLosslessSV1, "01", "01"),
    ],
)
def test_loss_in_one_slice_marks_the_whole_result(syntax, flag, expected):
    instances = head_ct(**TINY)
    if syntax is not None:
        instances[1].file_meta.TransferSyntaxUID = syntax
    if flag is not None:
        instances[1].LossyImageCompression = flag
    assert source_of(instances).lossy.LossyImageCompression == expected


def test_a_scanner_without_a_name_is_unknown():
    instances = head_ct(**TINY)
    for instance in instances:
        del instance.Manufacturer
    assert source_of(instances).equipment.Manufacturer == "UNKNOWN"
