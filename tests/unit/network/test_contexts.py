"""What an association may agree on."""

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from rebrain_node.domain.statuses import STATUSES
from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.network.contexts import KEPT, PROCESSED, VERIFICATION, accepted_contexts


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


def test_no_status_is_one_that_the_library_answers_of_itself() -> None:
    assert {each.status for each in STATUSES.values()}.isdisjoint({0xC210, 0xC211, 0x0122})
