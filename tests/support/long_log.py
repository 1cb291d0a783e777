"""A long audit log with the facts that it tells of, written in bulk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import insert, text

from rebrain_node.domain.audit import Event
from rebrain_node.store.audit import GENESIS
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditRow, InstanceRow, SeriesRow, StudyRow

_AT = "2026-01-31T12:00:00.000000+00:00"
_PER_SERIES = 200
_CHUNK = 20_000


def write_long_log(database: Database, rows: int) -> None:
    """Write rows of the log: instances of series of 180, and a step after each nine."""
    with database.writing() as session:
        connection = session.connection()
        connection.execute(insert(StudyRow), [_study(n, rows) for n in range(_places(rows))])
        connection.execute(insert(SeriesRow), [_series(n, rows) for n in range(_places(rows))])
    head = 0, GENESIS
    for first in range(0, rows, _CHUNK):
        told = [_told(n) for n in range(first, min(first + _CHUNK, rows))]
        chained = list(_chained(told, head))
        head = chained[-1]["sequence"], chained[-1]["hash"]
        with database.writing() as session:
            connection = session.connection()
            instances = [_instance(uid, each) for _, uid, each in told if "ledger_id" in each]
            connection.execute(insert(InstanceRow), instances)
            connection.execute(insert(AuditRow), chained)
            values = {"s": head[0], "h": head[1]}
            connection.execute(text("UPDATE audit_head SET sequence = :s, hash = :h"), values)


def _places(rows: int) -> int:
    return -(-rows // _PER_SERIES)


def _instances(place: int, rows: int) -> list[int]:
    begin = place * _PER_SERIES
    return [n for n in range(begin, min(begin + _PER_SERIES, rows)) if n % 10 != 9]


def _study(place: int, rows: int) -> dict[str, Any]:
    held = _instances(place, rows)
    return {
        "study_instance_uid": f"1.2.{place}",
        "state": "receiving",
        "instance_count": len(held),
        "last_ledger_id": held[-1] + 1,
        "last_run": 0,
    }


def _series(place: int, rows: int) -> dict[str, Any]:
    return {
        "series_instance_uid": f"1.2.{place}.1",
        "study_instance_uid": f"1.2.{place}",
        "state": "receiving",
        "revision": 1,
        "instance_count": len(_instances(place, rows)),
        "findings": [],
        "explanation": [],
        "changed_at": datetime.fromisoformat(_AT),
    }


def _told(n: int) -> tuple[str, str, dict[str, Any]]:
    study = f"1.2.{n // _PER_SERIES}"
    series = f"{study}.1"
    if n % 10 == 9:
        return Event.STEP_COMPLETED, series, {"step": "check", "seconds": 0.25}
    uid = f"{series}.{n}"
    details = {
        "ledger_id": n + 1,
        "series": series,
        "study": study,
        "sha256": hashlib.sha256(uid.encode()).hexdigest(),
        "size_bytes": 526_000,
        "calling_ae_title": "CT1",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax": "1.2.840.10008.1.2.1",
    }
    return Event.INSTANCE_RECEIVED, uid, details


def _chained(
    told: list[tuple[str, str, dict[str, Any]]], head: tuple[int, str]
) -> Iterator[dict[str, Any]]:
    sequence, digest = head
    for event, subject, details in told:
        sequence += 1
        words = json.dumps(details, sort_keys=True, separators=(",", ":"))
        array = [sequence, _AT, sequence * 1000, str(event), subject, words]
        line = digest + json.dumps(array, separators=(",", ":"))
        digest = hashlib.sha256(line.encode()).hexdigest()
        names = ("sequence", "recorded_at", "monotonic_ns", "event", "subject", "details")
        yield dict(zip(names, array, strict=True)) | {"hash": digest}


def _instance(uid: str, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": told["ledger_id"],
        "sop_instance_uid": uid,
        "sop_class_uid": told["sop_class"],
        "series_instance_uid": told["series"],
        "study_instance_uid": told["study"],
        "transfer_syntax_uid": told["transfer_syntax"],
        "sha256": told["sha256"],
        "size_bytes": told["size_bytes"],
        "path": f"{told['sha256'][:2]}/{told['sha256']}",
        "calling_ae_title": told["calling_ae_title"],
        "received_at": datetime.fromisoformat(_AT),
    }
