"""Who may associate, and how often a refusal is told."""

import pytest

from rebrain_node.network.admission import Caller, RateLimiter, refusal
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


def test_what_a_stranger_calls_itself_cannot_reach_a_terminal() -> None:
    caller = Caller.of("\x1b[31mX\n\\\u202e", "REBRAIN", "10.0.0.9")
    assert caller.calling_ae_title == "?[31mX???"
    assert caller.settings_line.isprintable() or "\x1b" not in caller.settings_line


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
