"""When the audit log was last verified as a whole: a note beside it, which changes no row of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rebrain_node.domain.audit import ChainVerdict

_FILE: Final = "audit-verified.json"


@dataclass(frozen=True, kw_only=True)
class VerificationRecord:
    """The last `audit verify`."""

    at: str  #: ISO 8601, UTC
    rows: int
    intact: bool

    @property
    def moment(self) -> datetime:
        """When it was (aware, UTC)."""
        return datetime.fromisoformat(self.at)


def note_verification(folder: Path, verdict: ChainVerdict) -> None:
    """Write down that the log was verified; what cannot be written is left out."""
    made = VerificationRecord(
        at=datetime.now(UTC).isoformat(timespec="seconds"), rows=verdict.rows, intact=verdict.intact
    )
    temporary = folder / f"{_FILE}.writing"
    with suppress(OSError):  # whoever verifies may have no right to write
        temporary.write_text(json.dumps(asdict(made)), encoding="utf-8")
        temporary.chmod(0o600)
        Path(temporary).replace(folder / _FILE)


def last_verification(folder: Path) -> VerificationRecord | None:
    """Read when the log was last verified; None where nobody did, or the note cannot be read."""
    try:
        record = VerificationRecord(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        zone = record.moment.tzinfo
    except (OSError, ValueError, TypeError):
        return None
    return None if zone is None else record
