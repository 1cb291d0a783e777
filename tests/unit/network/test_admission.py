"""Who may associate, for what, and how often a refusal is recorded."""

import tomllib

import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from rebrain_node.domain.statuses import STATUSES
from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.network.admission import (
    KEPT,
    PROCESSED,
    VERIFICATION,
    Caller,
    RateLimiter,
    accepted_contexts,
    refusal,
)
from rebrain_node.settings import Peer

PEERS = (
    Peer(ae_title="PACS", addresses=("10.0.0.0/24", "2001:db8::/64")),
    Peer(ae_title="PACS", addresses=("192.168.1.7/32",)),
)


@pytest.mark.parametrize(
    ("calling", "called", "address", "reason"),
    [
        ("PACS", "REBRAIN", "10.0.0.9", None),
        ("PACS  ", " REBRAIN", "10.0.0.9", None),
        ("PACS", "REBRAIN", "::ffff:10.0.0.9", None),
        ("PACS", "REBRAIN", "2001:db8::5%eth0", None),
        ("PACS", "REBRAIN", "192.168.1.7", None),
        ("PACS", "REBRAIN", "192.168.1.8", "UNKNOWN-ADDRESS"),
        ("PACS", "REBRAIN", "::1", "UNKNOWN-ADDRESS"),
        ("pacs", "REBRAIN", "10.0.0.9", "UNKNOWN-AE"),
        ("", "REBRAIN", "10.0.0.9", "UNKNOWN-AE"),
        ("PACS", "OTHER", "10.0.0.9", "CALLED-AE"),
    ],
)
def test_title_and_address_must_both_be_known(
    calling: str, called: str, address: str, reason: str | None
) -> None:
    assert refusal(Caller.of(calling, called, address), "REBRAIN", PEERS) == reason


def test_what_an_unknown_peer_calls_itself_cannot_reach_a_terminal() -> None:
    caller = Caller.of("\x1b[31mX\n\\\u202e", "REBRAIN", "10.0.0.9")
    assert caller.calling_ae_title == "?[31mX???"
    assert "\x1b" not in caller.admitting_settings("UNKNOWN-AE")


def test_lines_that_give_up_a_certificate_say_so_and_can_be_pasted() -> None:
    peer = Peer(ae_title="PACS", addresses=("10.0.0.9/32",), certificates=("CN=pacs",))
    caller = Caller.of("PACS", "REBRAIN", "10.0.0.9")
    reason = refusal(caller, "REBRAIN", (peer,))
    assert reason == "UNKNOWN-CERTIFICATE"
    lines = caller.admitting_settings(reason)
    assert "without a certificate" in lines
    (pasted,) = tomllib.loads(lines)["receiver"]["peers"]
    assert refusal(caller, "REBRAIN", (peer, Peer(**pasted))) is None
    assert "certificate" not in caller.admitting_settings("UNKNOWN-AE")


def test_the_same_event_is_recorded_rarely_and_counted() -> None:
    now = [0.0]
    limiter = RateLimiter(60, clock=lambda: now[0])
    assert [limiter.due("a"), limiter.due("a"), limiter.due("b")] == [0, None, 0]
    now[0] = 60.0
    assert limiter.due("a") == 1
    assert limiter.due("a") is None


def test_a_flood_of_unknown_callers_is_remembered_in_bounded_space() -> None:
    now = [0.0]
    limiter = RateLimiter(60, clock=lambda: now[0])
    recorded = sum(limiter.due(number) is not None for number in range(5000))
    assert recorded == 1001, "the others share one entry"
    now[0] = 60.0
    assert limiter.due("late") == 0, "old callers made room for an entry of its own"


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
