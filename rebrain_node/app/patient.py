"""Finds and erases what is stored of a patient."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from rebrain_node.blobs import inbox_blobs, outbox_blobs
from rebrain_node.errors import AlteredBytesError, StateError
from rebrain_node.store.erasure import ErasedStudy, Erasure

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.blobs import BlobStore


def studies_of_patient(state: State, patient: str) -> tuple[str, ...]:
    """Find the studies of which bytes are stored, by Patient ID or Study Instance UID.

    Raises
    ------
    StateError
        There are none.
    """
    erasure = _erasure(state)
    found = tuple(
        each.study_instance_uid
        for each in erasure.studies()
        if each.study_instance_uid == patient
        or patient in _patients(erasure.inbox, each.inbox)
        or patient in _patients(erasure.outbox, each.outbox)
    )
    if not found:
        raise StateError(
            "no stored study has that Patient ID or Study Instance UID; where retention has "
            "deleted the bytes, no name and no Patient ID is left"
        )
    return found


def patient_of_study(state: State, study: str) -> str | None:
    """Read the Patient ID of a study from a stored file; None where none is stored.

    Raises
    ------
    StoreUnavailableError
        Database or disk cannot be read now.
    """
    erasure = _erasure(state)
    sample = erasure.sample(study)
    found = [*_patients(erasure.inbox, sample.inbox), *_patients(erasure.outbox, sample.outbox)]
    return next(filter(None, found), None)


def erase_studies(state: State, studies: tuple[str, ...], reason: str) -> Iterator[ErasedStudy]:
    """Erase studies one by one.

    Raises
    ------
    StateError
        Something of a study is still to be made or delivered.
    OSError
        A file cannot be removed.
    """
    erasure, operator = _erasure(state), getpass.getuser()
    for study in studies:
        yield erasure.erase(study, operator=operator, reason=reason)


def _erasure(state: State) -> Erasure:
    folder = state.folder
    return Erasure(state.database, inbox_blobs(folder / "inbox"), outbox_blobs(folder / "outbox"))


def _patients(blobs: BlobStore, digests: tuple[str, ...]) -> Iterator[str]:
    """Patient IDs in stored files; a file that is lost or altered names nobody."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    for sha256 in digests:
        try:
            content = BytesIO(blobs.get(sha256))
            yield str(dcmread(content, specific_tags=["PatientID"]).get("PatientID") or "")
        except (AlteredBytesError, InvalidDicomError):
            continue
