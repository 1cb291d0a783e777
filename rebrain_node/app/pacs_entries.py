"""What an administrator enters at a PACS so that it sends to this node and takes its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import UID

from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.network.admission import KEPT, PROCESSED
from rebrain_node.network.services import SentObject, asked_services, sent_objects

if TYPE_CHECKING:
    from rebrain_node.settings import Receiver, Settings


@dataclass(frozen=True, kw_only=True)
class PacsSetup:
    """The node as a receiver of images, and as a sender of results."""

    entry: dict[str, object]  #: AE title, host, port, services, TLS
    processed: tuple[UID, ...]  #: SOP classes of which results are made
    kept: int  #: number of further SOP classes that are taken and kept
    received_syntaxes: tuple[UID, ...]
    sent: tuple[SentObject, ...]
    asked: dict[str, tuple[UID, ...]]  #: by destination: services beside Verification and Storage


def pacs_setup(settings: Settings) -> PacsSetup:
    """Read what to enter from the settings and the tables of the receiver and the sender."""
    receiver = settings.receiver
    everywhere = receiver.address in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return PacsSetup(
        entry={
            "AE title": receiver.ae_title,
            "host": "this machine" if everywhere else receiver.address,
            "port": receiver.port if receiver.tls is None else receiver.tls.port,
            "services": "Verification, Storage of CT, Enhanced CT",
            "TLS": _tls(receiver),
        },
        processed=PROCESSED,
        kept=len(KEPT),
        received_syntaxes=tuple(map(UID, decodable_transfer_syntaxes())),
        sent=sent_objects(settings),
        asked={each.name: asked_services(each) for each in settings.destinations},
    )


def _tls(receiver: Receiver) -> str:
    if receiver.tls is None:
        return "no"
    asked = receiver.tls.client_certificates == "required"
    who = "with a certificate of the sender" if asked else "without a certificate of the sender"
    plain = "" if receiver.port is None else f"; plain DICOM on port {receiver.port}"
    return f"1.2 or later, {who}{plain}"
