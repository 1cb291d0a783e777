"""Only text that is copied must be readable, and what is copied is what the writer copies."""

from __future__ import annotations

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from rebrain_node.instance.charset import COPIED_TEXT, charset_problem, is_readable
from rebrain_node.steps.write import source


def test_the_texts_that_must_be_readable_are_those_that_the_writer_copies() -> None:
    copied = {*source.REQUIRED_IDENTITY, *source.OPTIONAL_IDENTITY} - {"SpecificCharacterSet"}
    frame = {"PatientPosition", "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime"}
    assert set(COPIED_TEXT) == copied | frame


def test_an_element_that_cannot_be_read_is_named() -> None:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 6"
    data_set.StudyDescription = "Schädel"
    problem = charset_problem(data_set)
    assert problem is not None
    assert problem.startswith("Study Description (0008,1030)")
    assert "Schädel" not in problem
    data_set.SpecificCharacterSet = "ISO_IR 100"
    assert charset_problem(data_set) is None


def test_text_of_the_default_repertoire_is_held_against_it_whatever_is_declared() -> None:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    tag = Tag("StudyDate")
    data_set[tag] = RawDataElement(tag, "DA", 4, b"20\xc3\xa4", 0, False, True)
    assert not is_readable(data_set, "StudyDate")


def test_what_is_not_copied_may_be_anything() -> None:
    data_set = Dataset()
    data_set.ProtocolName = "Schädel"
    data_set.private_block(0x0029, "VENDOR", create=True).add_new(1, "LO", "Schädel")
    assert charset_problem(data_set) is None
