"""Identity, encodings and header values that break a rule: what is taken, what is refused."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from tests.field.case import Case
from tests.support.phantoms import head_ct, write

Change = Callable[[Sequence[Dataset]], None]


def _head() -> list[Dataset]:
    return head_ct(manufacturer="SIEMENS")


def _changed(change: Change) -> Callable[[Path], None]:
    """One head whose instances are changed before they are written."""

    def make(folder: Path) -> None:
        study = _head()
        change(study)
        write(study, folder)

    return make


def _twice(change: Change) -> Callable[[Path], None]:
    """A head, and beside it the same instances once more, changed."""

    def make(folder: Path) -> None:
        write(_head(), folder / "first")
        again = _head()
        change(again)
        write(again, folder / "second")

    return make


def _set(**values: object) -> Change:
    def change(study: Sequence[Dataset]) -> None:
        for instance in study:
            for keyword, value in values.items():
                setattr(instance, keyword, copy.deepcopy(value))

    return change


def _implicit(study: Sequence[Dataset]) -> None:
    for instance in study:
        instance.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _rle(study: Sequence[Dataset]) -> None:
    for instance in study:
        instance.compress(RLELossless, generate_instance_uid=False)


def _bytes(*patches: tuple[int, bytes, bytes]) -> Callable[[Path], None]:
    """A head of which elements of short form get another value: (tag, old VR, value)."""

    def make(folder: Path) -> None:
        for path in write(_prepared(), folder):
            content = path.read_bytes()
            for tag, vr, value in patches:
                content = _patched(content, tag, vr, value)
            path.write_bytes(content)

    return make


def _prepared() -> list[Dataset]:
    study = _head()
    _set(PatientWeight="70", PatientSize="1.7", StudyID="1")(study)
    return study


def _patched(content: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    element = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    at = content.index(element, 132) + len(element)
    length = int.from_bytes(content[at : at + 2], "little")
    value += b" " * (len(value) % 2)
    return content[:at] + struct.pack("<H", len(value)) + value + content[at + 2 + length :]


def _without_meta_length(folder: Path) -> None:
    for path in write(_head(), folder):
        content = path.read_bytes()
        path.write_bytes(content[:132] + content[144:])


def _undeclared(keyword: str) -> Callable[[Path], None]:
    """A head with an umlaut in one text and no Specific Character Set."""

    def make(folder: Path) -> None:
        study = _head()
        _set(SpecificCharacterSet="ISO_IR 100", **{keyword: "Sch\u00e4del"})(study)
        for path in write(study, folder):
            content = path.read_bytes()
            at = content.index(b"\x08\x00\x05\x00CS", 132)
            length = int.from_bytes(content[at + 6 : at + 8], "little")
            path.write_bytes(content[:at] + content[at + 8 + length :])

    return make


def _with_page(**values: str) -> Callable[[Path], None]:
    """A head, and one page of the same study that writes some elements otherwise."""

    def make(folder: Path) -> None:
        study = _head()
        write(study, folder / "ct")
        page = copy.deepcopy(study[0])
        page.SeriesInstanceUID = page.SOPInstanceUID = "1.2.826.0.1.3680043.10.999.9"
        page.file_meta.MediaStorageSOPInstanceUID = page.SOPInstanceUID
        page.ImageType = ["DERIVED", "SECONDARY"]
        _set(**values)([page])
        write([page], folder / "page")

    return make


def _change_vr(folder: Path, tag: int, old: bytes, new: bytes) -> None:
    for path in write(_head(), folder):
        element = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        path.write_bytes(path.read_bytes().replace(element + old, element + new))


_UNTIDY = (
    (0x00101030, b"DS", b"70,5"),
    (0x00101020, b"DS", b"1m70"),
    (0x00080030, b"TM", b"10:11:12"),
    (0x00080020, b"DA", b"2020.01.02"),
    (0x00100040, b"CS", b"Male"),
    (0x00100030, b"DA", b"1960"),
    (0x00200010, b"SH", b"x" * 40),
)

CASES = (
    Case(
        name="sent-again-with-another-name",
        group="identity",
        situation="The same SOP Instance UIDs once more with a corrected name and Patient ID.",
        source="PS3.4 B.2.3: status 0117, duplicate SOP instance",
        expected="refused: ID-DISPUTED",
        make=_twice(_set(PatientName="Right^Name", PatientID="4711")),
        sentence="24 files",
    ),
    Case(
        name="sent-again-with-other-pixels",
        group="identity",
        situation="The same SOP Instance UIDs once more with one pixel changed.",
        source="PS3.5 9.1: a UID identifies one instance",
        expected="refused: ID-DISPUTED",
        make=_twice(lambda study: setattr(study[3], "PixelData", study[4].PixelData)),
        sentence="1 file ",
    ),
    Case(
        name="sent-again-in-implicit-vr",
        group="identity",
        situation="The same instances once more in Implicit VR Little Endian.",
        source="PS3.5 A.1: the encoding is none of the instance",
        expected="accepted",
        make=_twice(_implicit),
    ),
    Case(
        name="sent-again-in-rle",
        group="identity",
        situation="The same instances once more, losslessly compressed by the PACS.",
        source="PS3.5 A.4.2",
        expected="accepted",
        make=_twice(_rle),
    ),
    Case(
        name="sent-again-with-a-retrieve-ae-title",
        group="identity",
        situation="The same instances once more from another archive that adds its AE title.",
        source="PS3.4 C.6: Retrieve AE Title (0008,0054) belongs to the answer, not the instance",
        expected="accepted",
        make=_twice(_set(RetrieveAETitle="ARCHIVE2", InstanceAvailability="ONLINE")),
    ),
    Case(
        name="nobody",
        group="identity",
        situation="Patient ID, name and birth date are all empty.",
        source="fli-iam/shanoir-ng#3153: an archive gives such objects an ID of its own",
        expected="refused: ID-EMPTY",
        make=_changed(_set(PatientID="", PatientName="", PatientBirthDate="")),
        sentence="two patients",
    ),
    Case(
        name="no-patient-id",
        group="identity",
        situation="A name, but no Patient ID.",
        source="fli-iam/shanoir-ng#3153",
        expected="accepted: ID-PARTIAL",
        make=_changed(_set(PatientID="")),
    ),
    Case(
        name="name-in-capitals-on-the-dose-page",
        group="identity",
        situation="The dose page writes the name in capitals.",
        source="fli-iam/shanoir-ng#3497: one ID, another spelling",
        expected="accepted: ID-NAME",
        make=_with_page(PatientName="phantom^HEAD"),
    ),
    Case(
        name="name-with-a-comma-on-the-dose-page",
        group="identity",
        situation="The dose page writes the name with a comma and swapped, without a birth date.",
        source="commontk/CTK#275: 'A, b' and 'A^b^^' taken for two persons",
        expected="accepted: ID-NAME",
        make=_with_page(PatientName="Head, Phantom", PatientBirthDate=""),
    ),
    Case(
        name="name-in-one-script-on-the-dose-page",
        group="identity",
        situation="Another name on the dose page, under the same Patient ID and birth date.",
        source="PS3.5 6.2.1.2: alphabetic, ideographic and phonetic groups of one name",
        expected="accepted: ID-NAME",
        make=_with_page(PatientName="Yamada^Tarou"),
    ),
    Case(
        name="another-patient-id-on-the-dose-page",
        group="identity",
        situation="The dose page has another Patient ID under the same name.",
        source="PS3.3 C.7.1.1",
        expected="refused: ID-MIXED",
        make=_with_page(PatientID="OTHER"),
        sentence="PatientID",
    ),
    Case(
        name="another-birth-date-on-the-dose-page",
        group="identity",
        situation="The dose page has another birth date and another name.",
        source="PS3.3 C.7.1.1",
        expected="refused: ID-MIXED",
        make=_with_page(PatientBirthDate="19500101", PatientName="Other^Name"),
        sentence="PatientBirthDate",
    ),
    Case(
        name="umlaut-in-the-protocol-name",
        group="charset",
        situation="A Latin-1 umlaut without (0008,0005), in an element that is not copied.",
        source="fo-dicom/fo-dicom#2029, ClearCanvas/ClearCanvas#132",
        expected="accepted",
        make=_undeclared("ProtocolName"),
    ),
    Case(
        name="umlaut-in-the-institution-name",
        group="charset",
        situation="A Latin-1 umlaut without (0008,0005) in Institution Name, which is left out.",
        source="DraconPern/dovo#9",
        expected="accepted",
        make=_undeclared("InstitutionName"),
    ),
    Case(
        name="umlaut-in-the-name",
        group="charset",
        situation="A Latin-1 umlaut without (0008,0005) in the name of the patient.",
        source="fo-dicom/fo-dicom#2029",
        expected="refused: CHARSET",
        make=_undeclared("PatientName"),
        sentence="Patient's Name (0010,0010)",
    ),
    Case(
        name="series-number-2A",
        group="header",
        situation="Series Number holds a letter.",
        source="pydicom/pydicom#153",
        expected="accepted",
        make=_bytes((0x00200011, b"IS", b"2A")),
    ),
    Case(
        name="instance-number-1.5",
        group="header",
        situation="Instance Number is no integer.",
        source="pydicom/pydicom#1643",
        expected="accepted",
        make=_bytes((0x00200013, b"IS", b"1.5")),
    ),
    Case(
        name="slope-twice",
        group="header",
        situation="Rescale Slope holds its one value twice.",
        source="pydicom/pydicom#1661, ivmartel/dwv#80",
        expected="accepted",
        make=_bytes((0x00281053, b"DS", b"1\\1")),
        pixels=True,
    ),
    Case(
        name="two-slopes",
        group="header",
        situation="Rescale Slope holds two different values.",
        source="pydicom/pydicom#1661",
        expected="refused: HU",
        make=_bytes((0x00281053, b"DS", b"1\\2")),
        pixels=True,
        sentence="Rescale Slope",
    ),
    Case(
        name="thickness-of-more-than-16-characters",
        group="header",
        situation="Slice Thickness is a decimal string of 22 characters.",
        source="pydicom/pydicom#1661; PS3.5 6.2 allows 16",
        expected="accepted",
        make=_bytes((0x00180050, b"DS", b"5.00000000000000000000")),
    ),
    Case(
        name="series-number-beyond-the-integers",
        group="header",
        situation="Series Number is larger than an integer string may be.",
        source="PS3.5 6.2, IS",
        expected="accepted",
        make=_bytes((0x00200011, b"IS", b"99999999999")),
    ),
    Case(
        name="untidy-header",
        group="header",
        situation="Weight 70,5, size 1m70, time 10:11:12, date 2020.01.02, sex Male, birth date "
        "1960, Study ID of 40 characters.",
        source="pydicom/pydicom#1661, fo-dicom/fo-dicom#1454",
        expected="accepted: AGE-UNKNOWN",  # 50 by the age, 59 by the birth date
        make=_bytes(*_UNTIDY),
    ),
    Case(
        name="uid-with-leading-zeros",
        group="header",
        situation="A component of the SOP Instance UIDs is written 007.",
        source="pydicom/pynetdicom#88, fo-dicom/fo-dicom#859",
        expected="not received: UID",
        make=_bytes((0x00080018, b"UI", b"1.2.826.0.1.3680043.10.999.007")),
    ),
    Case(
        name="name-with-the-representation-of-a-number",
        group="header",
        situation="Patient's Name has the value representation US.",
        source="PS3.6; PS3.5 7.1.2",
        expected="not received: VR",
        make=lambda folder: _change_vr(folder, 0x00100010, b"PN", b"US"),
    ),
    Case(
        name="padding-after-the-pixels",
        group="encoding",
        situation="2048 zero bytes follow the pixels within Pixel Data.",
        source="PS3.5 8.1.1; pydicom/pydicom#796",
        expected="accepted",
        make=_changed(
            lambda study: [setattr(d, "PixelData", d.PixelData + bytes(2048)) for d in study]
        ),
        pixels=True,
    ),
    Case(
        name="pixels-cut-short",
        group="encoding",
        situation="Pixel Data are 2048 bytes shorter than rows and columns say.",
        source="PS3.5 8.1.1",
        expected="not received: PIXEL-LENGTH",
        make=_changed(lambda study: [setattr(d, "PixelData", d.PixelData[:-2048]) for d in study]),
    ),
    Case(
        name="file-meta-without-its-length",
        group="encoding",
        situation="File meta information without (0002,0000).",
        source="pydicom/pydicom#109, dgobbi/vtk-dicom#158",
        expected="accepted",
        make=_without_meta_length,
    ),
)
