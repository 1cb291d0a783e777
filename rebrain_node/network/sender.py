"""Sending instances as they are stored: to the destinations, or files by hand.

The bytes of the data set travel unchanged, under the transfer syntax they are stored in; nothing
is decoded or encoded again. What a status means is in `domain.delivery.outcome_of`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.domain.delivery import Answer, HeldObject, Outcome, outcome_of
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.network.association import associated, describe, is_open
from rebrain_node.network.commitment import Recorder, request_commitment
from rebrain_node.network.query import DestinationQuery
from rebrain_node.network.services import propose
from rebrain_node.settings import DestinationSettings, DicomRemote

_ACCEPTED: Final = frozenset({"taken", "warning", "duplicate"})
#: what an outcome means, for the sentence of an answer
_MEANINGS: Final[Mapping[Outcome, str]] = {
    "taken": "accepted",
    "warning": "accepted with a warning; check there what it holds",
    "duplicate": "it already holds an instance of this UID; check there what it holds",
    "retry": "not accepted this time; it is sent again",
    "refused": "not accepted, nor will it be later; ask its administrator why",
    "unsupported": "this kind of object is not accepted",
}


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
        self._query = DestinationQuery(destination, calling_ae_title)

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._destination.name

    def send(self, instances: Sequence[DerivedInstance]) -> tuple[Answer, ...]:
        """Send over one association, in order, and return the answers in that order.

        The companions of the MR series are sent once each of its slices is accepted. A kind of
        object that the destination does not accept is left out (`companions = "lenient"`), or
        nothing is sent. An answer that is missing, because the association ended before, means
        that nothing was decided.

        Raises
        ------
        DeliveryError
            There is no association: nothing was sent.
        """
        if not instances:
            return ()
        kinds = {one.sop_instance_uid: _kind(BytesIO(one.content)) for one in instances}
        contexts = _contexts(list(kinds.values()))
        with associated(self._destination, self._calling_ae_title, contexts) as association:
            missing = {
                uid: reason
                for uid, kind in kinds.items()
                if (reason := _first_missing(association, [kind])) is not None
            }
            if missing and self._needs_all(instances, missing):
                return tuple(self._refusal(one, next(iter(missing.values()))) for one in instances)
            return tuple(self._send_all(association, instances, missing))

    def identity_conflict(self, instance: DerivedInstance) -> str | None:
        """As `DestinationQuery.identity_conflict`."""
        return self._query.identity_conflict(instance)

    def held(
        self, instances: Sequence[DerivedInstance], read_back: Sequence[str]
    ) -> tuple[HeldObject, ...]:
        """As `DestinationQuery.held`."""
        return self._query.held(instances, read_back)

    def request_commitment(
        self, instances: Sequence[DerivedInstance], transaction_uid: str, record: Recorder
    ) -> None:
        """As `network.commitment.request_commitment`."""
        request_commitment(
            self._destination, self._calling_ae_title, instances, transaction_uid, record
        )

    def _needs_all(self, instances: Sequence[DerivedInstance], missing: Mapping[str, str]) -> bool:
        """Whether a kind that the destination does not accept keeps the whole set back."""
        return self._destination.companions == "strict" or any(
            one.kind == "MR" and one.sop_instance_uid in missing for one in instances
        )

    def _refusal(self, instance: DerivedInstance, reason: str) -> Answer:
        return Answer(
            sop_instance_uid=instance.sop_instance_uid,
            outcome="refused",
            reason=f"{describe(self._destination)} {reason}",
        )

    def _send_all(
        self,
        association: Association,
        instances: Sequence[DerivedInstance],
        missing: Mapping[str, str],
    ) -> Iterator[Answer]:
        complete = True  # the MR series, so far
        for instance in instances:
            uid = instance.sop_instance_uid
            if instance.kind != "MR" and not complete:
                return
            if uid in missing:
                text = f"{describe(self._destination)} {missing[uid]}"
                yield Answer(sop_instance_uid=uid, outcome="unsupported", reason=text)
                continue
            answer = self._store(association, instance)
            yield answer
            if answer.outcome == "retry" and answer.status is None:
                return  # the association is gone
            complete &= instance.kind != "MR" or answer.outcome in _ACCEPTED

    def _store(self, association: Association, instance: DerivedInstance) -> Answer:
        uid = instance.sop_instance_uid
        with _readable(instance.content) as path:
            status = _c_store(association, path)
        if status is None:
            text = (
                f"{describe(self._destination)} gave no answer for instance {uid} within "
                f"{self._destination.timeout_s:g} s or ended the association"
            )
            return Answer(sop_instance_uid=uid, outcome="retry", reason=text)
        outcome = outcome_of(status)
        text = (
            f"{describe(self._destination)} answered 0x{status:04X} for {instance.kind} instance "
            f"{uid}: {_MEANINGS[outcome]}"
        )
        return Answer(
            sop_instance_uid=uid,
            outcome=outcome,
            status=status,
            reason=None if outcome == "taken" else text,
        )


def echo(destination: DicomRemote, calling_ae_title: str) -> float:
    """Verify the connection with C-ECHO (PS3.4 annex A); seconds from connecting to the answer.

    Raises
    ------
    DeliveryError
        No association, or no success; the text says why and what to do.
    """
    return propose(destination, calling_ae_title, ()).seconds


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
    outcome = outcome_of(status)
    return SentFile(
        path=path,
        sop_instance_uid=kind.sop_instance_uid,
        status=status,
        taken=outcome in _ACCEPTED,
        sentence=f"answered 0x{status:04X}: {_MEANINGS[outcome]}",
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
