"""A storage SCP on loopback that answers as a test says, and small instances to send to it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from io import BytesIO
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event

from rebrain_node.domain.job import DerivedInstance, ObjectKind
from rebrain_node.settings import DestinationSettings

Answer = Callable[[int], int | None]
#: storage commitment, push model (PS3.4 annex J): its SOP class and its one instance
PUSH_MODEL = UID("1.2.840.10008.1.20.1")
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"


def instance(n: int, sop_class: UID = MRImageStorage, kind: ObjectKind = "MR") -> DerivedInstance:
    """A small object with a private element of unknown VR, which a careless writer changes."""
    uid = f"2.25.{1000 + n}"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.7", "2.25.1"
    dataset.PatientName = "Test^Sender"
    dataset.add_new(0x00091001, "UN", b"\x00\x01\x02\x03")
    dataset.add_new(0x7FE00010, "OW", bytes(range(256)) * 64)
    return DerivedInstance(
        kind=kind,
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        series_instance_uid="2.25.1",
        content=encoded(dataset, ExplicitVRLittleEndian),
    )


def encoded(dataset: Dataset, transfer_syntax: UID) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class Peer:
    """What a test peer got, as it came over the network."""

    def __init__(self, answer: Answer, by_uid: Mapping[str, int]) -> None:
        self.answer = answer
        self.studies: list[dict[str, str]] = []  #: answers to a C-FIND of a study
        self.images: list[str] = []  #: SOP Instance UIDs for a C-FIND of images
        self.gives: Mapping[str, bytes] = {}  #: answers to C-GET by SOP Instance UID
        self.given: list[str] = []  #: SOP Instance UIDs that were asked for by C-GET
        self.by_uid = dict(by_uid)  #: status for a SOP Instance UID, before `answer` is asked
        self.received: list[tuple[str, UID, bytes]] = []
        self.contexts: list[tuple[UID, list[UID]]] = []
        self.calling: list[str] = []

    def store(self, event: Event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        status = self.by_uid.get(uid, self.answer(len(self.received) + 1))
        if status is None:
            event.assoc.abort()
            return 0x0000
        self.received.append(
            (
                uid,
                event.context.transfer_syntax,
                event.request.DataSet.getvalue(),
            )
        )
        return status

    def get(self, event: Event) -> Iterator[int | tuple[int, Dataset]]:
        yield 1
        uid = str(event.identifier.SOPInstanceUID)
        self.given.append(uid)
        yield 0xFF00, dcmread(BytesIO(self.gives[uid]))

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        question = event.identifier
        if question.QueryRetrieveLevel == "STUDY":
            answers = self.studies
        else:
            answers = [{"SOPInstanceUID": uid} for uid in self.images]
        for values in answers:
            answer = copy(question)
            for keyword, value in values.items():
                setattr(answer, keyword, value)
            yield 0xFF00, answer
        yield 0x0000, None

    def asked(self, event: Event) -> None:
        requestor = event.assoc.requestor
        self.calling.append(requestor.ae_title)
        self.contexts = [
            (one.abstract_syntax, list(one.transfer_syntax)) for one in requestor.requested_contexts
        ]


@contextmanager
def a_peer(
    answer: Answer = lambda _: 0x0000,
    sop_classes: Sequence[UID] = (MRImageStorage, CTImageStorage),
    handlers: Sequence[tuple[object, Callable[[Event], None]]] = (),
    by_uid: Mapping[str, int] = MappingProxyType({}),
    studies: Sequence[dict[str, str]] | None = None,
    images: Sequence[str] | None = None,
    gives: Mapping[str, bytes] | None = None,
    port: int = 0,
    **options: bool,
) -> Iterator[tuple[Peer, DestinationSettings]]:
    """Listen; with ``studies`` or ``images`` the peer answers C-FIND too, with ``gives`` C-GET."""
    peer, entity = Peer(answer, by_uid), AE(ae_title="PACS")
    peer.studies, peer.images = list(studies or ()), list(images or ())
    if studies is not None or images is not None:
        entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    roles = {} if gives is None else {"scu_role": True, "scp_role": True}
    if gives is not None:
        peer.gives = gives
        entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.3")
    for sop_class in sop_classes:
        entity.add_supported_context(
            sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless], **roles
        )
    for name, value in options.items():
        setattr(entity, name, value)
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, peer.store),
            (evt.EVT_C_FIND, peer.find),
            (evt.EVT_C_GET, peer.get),
            (evt.EVT_ESTABLISHED, peer.asked),
            *handlers,
        ],
    )
    try:
        yield peer, settings_for(server.server_address[1])
    finally:
        server.shutdown()


def settings_for(port: int, **changes: object) -> DestinationSettings:
    return DestinationSettings(
        **{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 5.0}
        | changes
    )


def commit_all(event: Event) -> tuple[int, Dataset]:
    """Handle N-ACTION: commit to every object, over the association of the request."""
    arguments = (event.action_information, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    threading.Timer(0.02, event.assoc.send_n_event_report, arguments).start()
    return 0x0000, Dataset()


@contextmanager
def listening_ae(
    sop_classes: Sequence[UID], ssl_context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Listen as an AE that takes C-ECHO and associations for some SOP classes; its port."""
    peer = AE("PACS")
    for each in (UID("1.2.840.10008.1.1"), *sop_classes):
        peer.add_supported_context(each)
    server = peer.start_server(("127.0.0.1", 0), block=False, ssl_context=ssl_context)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
