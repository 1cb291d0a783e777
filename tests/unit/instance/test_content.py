"""The same instance in another encoding is the same; any other content is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from rebrain_node.instance.content import different_elements, same_content
from tests.support.phantoms import PhantomSpec, enhanced_ct, head_ct

pytestmark = pytest.mark.hazard("H2")
SPEC = PhantomSpec(rows=32, columns=40, slice_distances_mm=(0.0, 6.0), noise_hu=20.0)


@pytest.fixture
def ct() -> Dataset:
    instance = head_ct(SPEC)[0]
    instance.SpecificCharacterSet = "ISO_IR 100"
    instance.PatientName = "Müller^Änne"
    instance.ImageComments = "Schädel"
    return instance


def encoded(instance: Dataset, syntax: str | None = None) -> bytes:
    """The file of an instance, as it is or with another transfer syntax."""
    copied = copy.deepcopy(instance)
    if syntax is not None:
        copied.file_meta.TransferSyntaxUID = syntax
    stream = BytesIO()
    implicit = copied.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    little = copied.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    copied.save_as(stream, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    return stream.getvalue()


def compressed(
    instance: Dataset, syntax: str, encode: Callable[[np.ndarray], bytes], kind: str = "<u2"
) -> bytes:
    copied = copy.deepcopy(instance)
    pixels = np.frombuffer(copied.PixelData, kind).reshape(copied.Rows, copied.Columns)
    copied.PixelData = encapsulate([bytes(encode(pixels))])
    copied["PixelData"].VR = "OB"
    copied["PixelData"].is_undefined_length = True
    return encoded(copied, syntax)


def jpeg2000(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True)


def jpeg(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=16)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_uncompressed_copy_is_the_same_instance(ct: Dataset, syntax: str) -> None:
    assert same_content(encoded(ct), encoded(ct, syntax))
    assert same_content(encoded(ct, syntax), encoded(ct))


def test_a_big_endian_copy_is_the_same_instance() -> None:
    copied = head_ct(replace(SPEC, transfer_syntax=ExplicitVRBigEndian))[0]
    assert same_content(encoded(head_ct(SPEC)[0]), encoded(copied))


@pytest.mark.parametrize(
    ("syntax", "encode", "kind"),
    [
        (JPEG2000Lossless, jpeg2000, "<i2"),
        (JPEGLSLossless, imagecodecs.jpegls_encode, "<u2"),
        (JPEGLosslessSV1, jpeg, "<u2"),
    ],
    ids=["J2K", "JPEG-LS", "JPEG lossless"],
)
def test_a_losslessly_compressed_copy_is_the_same_instance(
    ct: Dataset, syntax: str, encode: Callable[[np.ndarray], bytes], kind: str
) -> None:
    copied = compressed(ct, syntax, encode, kind)
    assert same_content(encoded(ct), copied)
    assert same_content(copied, encoded(ct))
    assert same_content(copied, compressed(ct, JPEG2000Lossless, jpeg2000, "<i2"))


def test_an_rle_copy_is_the_same_instance(ct: Dataset) -> None:
    copied = copy.deepcopy(ct)
    copied.compress(RLELossless, generate_instance_uid=False)
    assert same_content(encoded(ct), encoded(copied))


def test_a_multi_frame_copy_is_the_same_instance() -> None:
    instance = enhanced_ct(SPEC)
    copied = copy.deepcopy(instance)
    copied.compress(RLELossless, generate_instance_uid=False)
    assert same_content(encoded(instance), encoded(copied))
    copied = copy.deepcopy(instance)
    copied.PixelData = copied.PixelData[:-2] + b"\x01\x00"
    assert not same_content(encoded(instance), encoded(copied))


def test_a_lossy_copy_is_another_instance(ct: Dataset) -> None:
    def lossy(pixels: np.ndarray) -> bytes:
        return imagecodecs.jpegls_encode(pixels, level=3)

    assert not same_content(encoded(ct), compressed(ct, JPEGLSNearLossless, lossy))
    for syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):  # and one that does not even decode
        assert not same_content(encoded(ct), compressed(ct, syntax, jpeg2000))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: setattr(d, "RetrieveAETitle", "PACS2"),
        lambda d: setattr(d, "InstanceAvailability", "ONLINE"),
        lambda d: setattr(d, "LossyImageCompression", "00"),
        lambda d: setattr(d.file_meta, "ImplementationVersionName", "OTHER"),
        lambda d: setattr(d.file_meta, "SourceApplicationEntityTitle", "PACS2"),
        lambda d: d.add_new(0x00100000, "UL", 4711),
        lambda d: d.add_new(0xFFFCFFFC, "OB", bytes(64)),
        lambda d: d.private_block(0x0029, "A VENDOR", create=True).add_new(1, "LO", "x"),
        lambda d: setattr(d, "StudyComments", ""),
        lambda d: setattr(d, "PixelData", d.PixelData + bytes(2048)),
    ],
    ids=["retrieve", "availability", "not-lossy", "version", "source", "group-length", "padding",
         "private", "empty", "excess"],
)  # fmt: skip
def test_what_a_pacs_adds_on_the_way_is_none_of_the_instance(
    ct: Dataset, change: Callable[[Dataset], object]
) -> None:
    copied = copy.deepcopy(ct)
    change(copied)
    assert same_content(encoded(ct), encoded(copied))


def test_a_text_in_another_character_set_is_the_same_text(ct: Dataset) -> None:
    copied = copy.deepcopy(ct)
    copied.decode()
    copied.SpecificCharacterSet = "ISO_IR 192"
    assert same_content(encoded(ct), encoded(copied, ImplicitVRLittleEndian))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: setattr(d, "PatientName", "Other^Name"), "Patient's Name (0010,0010)"),
        (lambda d: setattr(d, "PatientID", "4711"), "Patient ID (0010,0020)"),
        (lambda d: setattr(d, "PatientBirthDate", ""), "Patient's Birth Date (0010,0030)"),
        (lambda d: setattr(d, "SeriesInstanceUID", "1.2.3"), "Series Instance UID (0020,000E)"),
        (lambda d: setattr(d, "RescaleIntercept", "-1000"), "Rescale Intercept (0028,1052)"),
        (lambda d: setattr(d, "ImagePositionPatient", [0, 0, 1]),
         "Image Position (Patient) (0020,0032)"),
        (lambda d: setattr(d, "RequestAttributesSequence", [Dataset()]),
         "Request Attributes Sequence (0040,0275)"),
    ],
)  # fmt: skip
def test_another_value_is_another_instance_and_its_element_is_named(
    ct: Dataset, change: Callable[[Dataset], object], named: str
) -> None:
    copied = copy.deepcopy(ct)
    change(copied)
    assert not same_content(encoded(ct), encoded(copied))
    assert different_elements(encoded(ct), encoded(copied)) == (named,)


def test_other_pixels_are_another_instance(ct: Dataset) -> None:
    copied = copy.deepcopy(ct)
    copied.PixelData = b"\x01\x00" + copied.PixelData[2:]
    assert not same_content(encoded(ct), encoded(copied))
    assert not same_content(encoded(ct), compressed(copied, JPEGLSLossless,
                                                    imagecodecs.jpegls_encode))  # fmt: skip
    assert different_elements(encoded(ct), encoded(copied)) == ()
