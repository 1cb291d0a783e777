"""Sending instances as they are stored: to the destinations, or files by hand.

The bytes of the data set travel unchanged, under the transfer syntax they are stored in; nothing
is decoded or encoded again. What a C-STORE status means (PS3.4 table B.2-1, PS3.7 annex C):

======================  =========================================================
0000                    taken
Bxxx, 0001, 0107, 0116  taken with a warning: not verified, the peer may hold something else
A7xx                    out of resources: worth retrying
0110, 0210              processing failure, duplicate invocation: worth retrying
A9xx                    data set does not match SOP class: refused for good
Cxxx                    cannot understand: refused for good, the same bytes never will be
0117, 0122, 0124,       invalid instance, SOP class not supported, not authorised, ...:
0105, 0106, 0115,       refused for good
0112, 0118, 0211, 0212
anything else           not of the standard's table: worth retrying
======================  =========================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.domain.delivery import TakenInstance
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, PermanentDeliveryError
from rebrain_node.network.admission import VERIFICATION
from rebrain_node.network.association import associated, describe, is_open
from rebrain_node.settings import DestinationSettings

StatusClass = Literal["success", "warning", "retryable", "refused"]

_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
_REFUSALS = frozenset(
    {0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0122, 0x0124, 0x0211, 0x0212}
)


def status_class(status: int) -> StatusClass:
    """What a C-STORE status asks of the sender (table above)."""
    if status == 0x0000:
        return "success"
    if status in _WARNINGS or status & 0xF000 == 0xB000:
        return "warning"
    if status in _REFUSALS or status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000:
        return "refused"
    return "retryable"


@dataclass(frozen=True, kw_only=True)
class SentFile:
    """What became of one file sent by hand."""

    path: Path
    sop_instance_uid: str | None  #: None where the file is not DICOM
    status: int | None  #: DIMSE status of the answer, None where it was not sent
    taken: bool
    sentence: str


class PacsDestination:
    """One remote storage SCP (port ``Destination``)."""

    def __init__(self, destination: DestinationSettings, calling_ae_title: str) -> None:
        self._destination = destination
        self._calling_ae_title = calling_ae_title

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._destination.name

    def send(self, instances: Sequence[DerivedInstance]) -> tuple[TakenInstance, ...]:
        """Send over one association, in order, stopping at the first that is not taken.

        Raises
        ------
        DeliveryError
            No association, or an answer that is worth another try; ``taken`` says how far it got.
        PermanentDeliveryError
            The destination will never take an instance; ``taken`` says how far it got.
        """
        if not instances:
            return ()
        kinds = [_kind(BytesIO(one.content)) for one in instances]
        taken: list[TakenInstance] = []
        with associated(self._destination, self._calling_ae_title, _contexts(kinds)) as association:
            missing = _first_missing(association, kinds)
            if missing is not None:
                raise PermanentDeliveryError(f"{describe(self._destination)} {missing}")
            for instance in instances:
                try:
                    taken.append(self._store(association, instance))
                except DeliveryError as failure:
                    failure.taken = tuple(taken)
                    raise
        return tuple(taken)

    def _store(self, association: Association, instance: DerivedInstance) -> TakenInstance:
        with _readable(instance.content) as path:
            status = _c_store(association, path)
        if status is None:
            raise DeliveryError(
                f"{describe(self._destination)} gave no answer for instance "
                f"{instance.sop_instance_uid} within {self._destination.timeout_s:g} s or ended "
                "the association; check it, the delivery is tried again"
            )
        meaning = status_class(status)
        if meaning in {"success", "warning"}:
            return TakenInstance(sop_instance_uid=instance.sop_instance_uid, status=status)
        text = (
            f"{describe(self._destination)} answered 0x{status:04X} for {instance.kind} instance "
            f"{instance.sop_instance_uid}"
        )
        if meaning == "refused":
            raise PermanentDeliveryError(
                f"{text}: it will never take it; ask its administrator why"
            )
        raise DeliveryError(f"{text}: not this time; the delivery is tried again")


def echo(destination: DestinationSettings, calling_ae_title: str) -> float:
    """Verify the connection with C-ECHO (PS3.4 annex A); seconds from connecting to the answer.

    Raises
    ------
    DeliveryError
        No association, or no success; the text says why and what to do.
    """
    begun = time.monotonic()
    context = build_context(VERIFICATION)
    with associated(destination, calling_ae_title, [context]) as association:
        if not association.accepted_contexts:
            raise DeliveryError(
                f"{describe(destination)} does not take C-ECHO; allow Verification there"
            )
        status = getattr(association.send_c_echo(), "Status", None)
        if status != 0x0000:
            answer = "nothing in time" if status is None else f"0x{status:04X}"
            raise DeliveryError(f"{describe(destination)} answered {answer} to C-ECHO")
    return time.monotonic() - begun


def send_files(
    destination: DestinationSettings,
    calling_ae_title: str,
    paths: Sequence[Path],
    progress: Callable[[SentFile], None] | None = None,
) -> tuple[SentFile, ...]:
    """Send files over one association, each in its own transfer syntax; all are tried.

    ``progress`` is called with each result as it comes.

    Raises
    ------
    DeliveryError
        There is no association: nothing was sent.
    """
    kinds = {path: _kind_of_file(path) for path in paths}
    known = [kind for kind in kinds.values() if kind is not None]
    if not known:
        return tuple(_not_sent(path, None, "not a DICOM file") for path in paths)
    results: list[SentFile] = []
    with associated(destination, calling_ae_title, _contexts(known)) as association:
        for path, kind in kinds.items():
            results.append(_send_file(association, path, kind))
            if progress is not None:
                progress(results[-1])
    return tuple(results)


@dataclass(frozen=True)
class _Kind:
    """What the presentation context of an instance depends on, and its UID."""

    sop_class_uid: UID
    transfer_syntax_uid: UID
    sop_instance_uid: str

    @property
    def context(self) -> tuple[UID, UID]:
        return self.sop_class_uid, self.transfer_syntax_uid


def _kind(source: BinaryIO) -> _Kind:
    meta = read_partial(source, stop_when=lambda _tag, _vr, _length: True).file_meta
    return _Kind(
        meta.MediaStorageSOPClassUID,
        meta.TransferSyntaxUID,
        str(meta.MediaStorageSOPInstanceUID),
    )


def _kind_of_file(path: Path) -> _Kind | None:
    try:
        with path.open("rb") as stream:
            return _kind(stream)
    except (InvalidDicomError, AttributeError, OSError):
        return None


def _contexts(kinds: Sequence[_Kind]) -> list[PresentationContext]:
    """One context for each SOP class and transfer syntax, so that the peer cannot choose one."""
    return [build_context(*pair) for pair in dict.fromkeys(kind.context for kind in kinds)]


def _first_missing(association: Association, kinds: Sequence[_Kind]) -> str | None:
    accepted = {
        (context.abstract_syntax, context.transfer_syntax[0])
        for context in association.accepted_contexts
    }
    for kind in kinds:
        if kind.context not in accepted:
            return (
                f"does not take {kind.sop_class_uid.name} ({kind.sop_class_uid}) in "
                f"{kind.transfer_syntax_uid.name}; allow this SOP class and transfer syntax there"
            )
    return None


def _c_store(association: Association, path: Path) -> int | None:
    """Send one file's data set; None where no valid answer came."""
    if not is_open(association):
        return None
    return getattr(association.send_c_store(path), "Status", None)


def _send_file(association: Association, path: Path, kind: _Kind | None) -> SentFile:
    if kind is None:
        return _not_sent(path, None, "not a DICOM file")
    missing = _first_missing(association, [kind])
    if missing is not None and is_open(association):
        return _not_sent(path, kind, f"the peer {missing}")
    status = _c_store(association, path)
    if status is None:
        return _not_sent(path, kind, "no answer: the peer ended the association or took too long")
    meaning = status_class(status)
    return SentFile(
        path=path,
        sop_instance_uid=kind.sop_instance_uid,
        status=status,
        taken=meaning in {"success", "warning"},
        sentence=f"answered 0x{status:04X} ({meaning})",
    )


def _not_sent(path: Path, kind: _Kind | None, sentence: str) -> SentFile:
    uid = None if kind is None else kind.sop_instance_uid
    return SentFile(path=path, sop_instance_uid=uid, status=None, taken=False, sentence=sentence)


@contextmanager
def _readable(content: bytes) -> Iterator[Path]:
    """Give bytes a path that exists in memory only: nothing of a patient is left on a disk."""
    descriptor = os.memfd_create("instance", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
