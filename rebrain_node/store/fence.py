"""The turn of a writer of a shared database (PostgreSQL), and the token that it must still hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy import make_url

#: PostgreSQL advisory lock of all our writers: "rebrain" in ASCII
_WRITER_LOCK: Final = int.from_bytes(b"rebrain", "big")
#: a writer that stands still inside its transaction loses it after so long, ms: a process that is
#: frozen must not keep the lock of all writers
STANDSTILL_MS: Final = 10_000
_LIMIT_STANDSTILL: Final = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{STANDSTILL_MS}', true)"
)
_TAKE_TURN: Final = f"{_LIMIT_STANDSTILL}, pg_advisory_xact_lock({_WRITER_LOCK})"
#: a statement after the one that takes the lock, so that it sees what the writer before wrote
_IN_FORCE: Final = "SELECT 1 FROM executor WHERE token = %s AND NOT is_fenced"


@dataclass(frozen=True)
class FenceCheck:
    """What a process of a shared database must still hold to write anything.

    Parameters
    ----------
    token
        Of the process (`store.executors`).
    lost
        Called where the token is not in force any more; it does not return.
    """

    token: str
    lost: Callable[[], NoReturn]


def take_turn(cursor: Any, fence: FenceCheck | None) -> None:
    """Wait, in a transaction that begins, until no other process writes; then check the token."""
    cursor.execute(_TAKE_TURN)
    if fence is not None:
        cursor.execute(_IN_FORCE, (fence.token,))
        if cursor.fetchone() is None:
            fence.lost()


def limited_url(url: str) -> str:
    """Return a URL of PostgreSQL whose every transaction ends if its process stands still."""
    option = f"-c idle_in_transaction_session_timeout={STANDSTILL_MS}"
    limited = make_url(url).update_query_dict({"options": option})
    return limited.render_as_string(hide_password=False)


def limit_standstill(cursor: Any) -> None:
    """Let the server end this transaction if its process stands still."""
    cursor.execute(_LIMIT_STANDSTILL)
