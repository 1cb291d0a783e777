"""Data sets to bytes, in Explicit VR Little Endian, copied text untouched.

pydicom decodes and encodes raw elements again unless a data set says that it was read in the very
encoding it is written in (``Dataset.set_original_encoding``); ours says so. It then no longer
resolves ambiguous VRs either: whoever sets such an element calls ``correct_ambiguous_vr``.
"""

from __future__ import annotations

from io import BytesIO

from pydicom import dcmwrite
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from rebrain_node.domain.job import DerivedInstance, ObjectKind


def encoded_once(dataset: Dataset) -> Dataset:
    """Return the same elements as raw bytes, sequences too: cheap to write many times over."""
    _keep_raw(dataset)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit_VR=False, is_little_endian=True)


def encode(dataset: Dataset, kind: ObjectKind) -> DerivedInstance:
    """Write a data set as the bytes of a DICOM file (PS3.10)."""
    _keep_raw(dataset)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return DerivedInstance(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=buffer.getvalue(),
    )


def keep_raw_item(item: Dataset) -> Dataset:
    """Let the raw elements of a sequence's item be written as they are."""
    item.set_original_encoding(False, True, default_encoding)
    return item


def _keep_raw(dataset: Dataset) -> None:
    declared = dataset.get("SpecificCharacterSet", None)
    encodings = convert_encodings(declared) if declared else default_encoding
    dataset.set_original_encoding(False, True, encodings)
