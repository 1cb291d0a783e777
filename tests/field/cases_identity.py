"""Identity, encodings and header values that break a rule: what is taken, what is refused."""

from __future__ import annotations

import copy
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
)
