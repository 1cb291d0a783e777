"""What is agreed on, and that docs/receiving.md tells all of it."""

from pathlib import Path
from typing import get_args

import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.instance.scan import REASONS
from rebrain_node.network import pynetdicom_hardening as guard
from rebrain_node.network import receiver
from rebrain_node.network.admission import Reason
from rebrain_node.network.contexts import KEPT, PROCESSED, VERIFICATION, accepted_contexts
from rebrain_node.network.receiver import DEFECT
from rebrain_node.settings import Receiver

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "receiving.md").read_text()


def test_only_what_decodes_is_offered() -> None:
    few = decodable_transfer_syntaxes()[:4]
    for context in accepted_contexts(few):
        assert set(context.transfer_syntax) <= set(few)
        assert DeflatedExplicitVRLittleEndian not in context.transfer_syntax


def test_ct_and_everything_a_pacs_sends_with_it_is_accepted_and_nothing_else() -> None:
    offered = {c.abstract_syntax for c in accepted_contexts(decodable_transfer_syntaxes())}
    assert offered == {VERIFICATION, *PROCESSED, *KEPT}
    names = {UID(uid).name for uid in offered if UID(uid).name != uid}  # pydicom knows not all
    assert {"CT Image Storage", "Enhanced CT Image Storage", "MR Image Storage"} <= names
    assert {"Secondary Capture Image Storage", "Comprehensive SR Storage"} <= names
    assert all("Storage" in name or "Verification" in name for name in names)
    assert "1.2.840.10008.1.20.1" not in offered, "storage commitment brings event reports"


@pytest.mark.parametrize("uid", decodable_transfer_syntaxes())
def test_every_transfer_syntax_is_in_the_docs(uid: str) -> None:
    assert uid in PAGE


@pytest.mark.parametrize(("reason", "status"), [*REASONS.items(), ("DEFECT", DEFECT)])
def test_every_reason_is_in_the_docs_with_its_status(reason: str, status: int) -> None:
    assert f"| {status:04X} | `{reason}` |" in PAGE


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_refusal_is_in_the_docs(reason: str) -> None:
    assert f"`{reason}`" in PAGE


def test_no_two_reasons_share_a_status_and_none_is_the_library_s() -> None:
    assert len(set(REASONS.values())) == len(REASONS)
    assert 0xC211 not in REASONS.values()


def test_the_limits_in_the_docs_are_the_limits_in_force() -> None:
    settings = Receiver()
    for row in (
        f"| {settings.maximum_associations} | `receiver.maximum_associations`",
        f"| {settings.maximum_unassociated} | `receiver.maximum_unassociated`",
        f"| {settings.maximum_unassociated_per_address} | `receiver.maximum_unassociated_per",
        f"| {settings.association_timeout_s:g} s | `receiver.association_timeout_s`",
        f"| {settings.pdu_timeout_s:g} s | `receiver.pdu_timeout_s`",
        f"| {settings.maximum_message_bytes >> 20} MiB | `receiver.maximum_message_bytes`",
        f"| A-ASSOCIATE PDU | {guard.MAXIMUM_ASSOCIATE_BYTES >> 10} KiB |",
        f"| P-DATA PDU (offered and enforced) | {guard.MAXIMUM_PDU_BYTES >> 10} KiB |",
        f"| command set | {guard.MAXIMUM_COMMAND_BYTES >> 10} KiB |",
        f"| silence of an association | {receiver.IDLE_TIMEOUT_S:g} s |",
        f"| connections that wait to be accepted | {guard.BACKLOG} |",
        f"| {guard.INCOMPLETE_COMMAND:04X} |",
    ):
        assert row in PAGE, row
