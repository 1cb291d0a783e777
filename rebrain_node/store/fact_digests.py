"""What an audit row says of the rows that changed with it, beside what its caller says.

A digest is the SHA-256 of canonical JSON over the columns below. The newest one of a delivery
must agree with the table (`store.audit_facts`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.ports import JsonValue
from rebrain_node.store.tables import DeliveryRow, DerivedInstanceRow

_Details = Mapping[str, JsonValue]
#: columns of `delivery` under its digest; not attempts, reason and time of the last failure
DELIVERY_COLUMNS: Final = (
    DeliveryRow.derived_instance_id, DeliveryRow.state, DeliveryRow.status,
)  # fmt: skip
#: columns of `derived_instance` under the digest of its set
OBJECT_COLUMNS: Final = (
    DerivedInstanceRow.position, DerivedInstanceRow.kind, DerivedInstanceRow.sop_class_uid,
    DerivedInstanceRow.sop_instance_uid, DerivedInstanceRow.series_instance_uid,
    DerivedInstanceRow.sha256, DerivedInstanceRow.size_bytes,
)  # fmt: skip


def digest_of(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 over rows in their order, as a JSON array of arrays without spaces, hexadecimal."""
    text = json.dumps([list(row) for row in rows], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sha256_of(text: str | None) -> str | None:
    """SHA-256 of a text, hexadecimal; None of none."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def fact_details(session: Session, event: str, subject: str, details: _Details) -> _Details:
    """Add to the details of an event the digests of what changed with it."""
    witness = _DIGESTS.get(event)
    if witness is None or "set" not in details:
        return details
    return {**details, **witness(session, subject, details)}


def _of_destination(session: Session, subject: str, details: _Details) -> _Details:
    return {"rows": _delivery_digest(session, details["set"], subject)}


def _of_set(session: Session, subject: str, details: _Details) -> _Details:  # noqa: ARG001 - one signature for all
    set_id = details["set"]
    objects = select(*OBJECT_COLUMNS).where(DerivedInstanceRow.set_id == set_id)
    destinations = select(DeliveryRow.destination).where(DeliveryRow.set_id == set_id).distinct()
    rows = {
        name: _delivery_digest(session, set_id, name)
        for name in session.scalars(destinations.order_by(DeliveryRow.destination)).all()
    }
    manifest = digest_of(session.execute(objects.order_by(DerivedInstanceRow.position)))
    return {"manifest": manifest, "rows": rows}


def _delivery_digest(session: Session, set_id: object, destination: str) -> str:
    query = (
        select(*DELIVERY_COLUMNS)
        .where(DeliveryRow.set_id == set_id, DeliveryRow.destination == destination)
        .order_by(DeliveryRow.derived_instance_id)
    )
    return digest_of(session.execute(query))


_DIGESTS: Final[Mapping[str, Callable[[Session, str, _Details], _Details]]] = {
    **dict.fromkeys(
        (
            Event.DELIVERY_TAKEN, Event.DELIVERY_FAILED, Event.DELIVERY_REFUSED,
            Event.DELIVERY_HELD, Event.DELIVERY_VERIFIED, Event.COMMITMENT_ANSWERED,
            Event.DELIVERY_WITHDRAWN, Event.DELIVERY_RETRIED, Event.DELIVERY_CANCELLED,
        ),
        _of_destination,
    ),
    Event.SERIES_SYNTHESISED: _of_set,
    Event.SERIES_RECALLED: _of_set,
}  # fmt: skip
