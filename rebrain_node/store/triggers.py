"""The triggers that keep audit log and checkpoints append-only, and whether they stand.

Rows of the log may be deleted up to the newest seal, and nowhere else; the signature of the seal
is not the database's to check (`store.checkpoints`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import Connection, text

from rebrain_node.domain.audit import AuditDifference

_SEALED: Final = "(SELECT coalesce(max(sequence), 0) FROM audit_checkpoint WHERE kind = 'seal')"
_RAISE: Final = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
#: by name, as SQLite keeps them
SQLITE: Final[Mapping[str, str]] = {
    "audit_event_no_update": (
        f"CREATE TRIGGER audit_event_no_update BEFORE update ON audit_event {_RAISE}"
    ),
    "audit_event_no_delete": (
        "CREATE TRIGGER audit_event_no_delete BEFORE delete ON audit_event "
        f"WHEN OLD.sequence > {_SEALED} {_RAISE}"
    ),
    "audit_checkpoint_no_update": (
        f"CREATE TRIGGER audit_checkpoint_no_update BEFORE update ON audit_checkpoint {_RAISE}"
    ),
    "audit_checkpoint_no_delete": (
        f"CREATE TRIGGER audit_checkpoint_no_delete BEFORE delete ON audit_checkpoint {_RAISE}"
    ),
}
#: bodies of the functions of PostgreSQL, by name
POSTGRESQL_FUNCTIONS: Final[Mapping[str, str]] = {
    "audit_event_append_only": "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END",
    "audit_event_delete_sealed": (
        f"BEGIN IF OLD.sequence > {_SEALED} THEN "
        "RAISE EXCEPTION 'the audit log is append-only'; END IF; RETURN OLD; END"
    ),
}
#: (name, table, when, function) of PostgreSQL
POSTGRESQL: Final = (
    (
        "audit_event_no_change",
        "audit_event",
        "BEFORE UPDATE OR TRUNCATE",
        "STATEMENT",
        "audit_event_append_only",
    ),
    ("audit_event_no_delete", "audit_event", "BEFORE DELETE", "ROW", "audit_event_delete_sealed"),
    (
        "audit_checkpoint_no_change",
        "audit_checkpoint",
        "BEFORE UPDATE OR DELETE OR TRUNCATE",
        "STATEMENT",
        "audit_event_append_only",
    ),
)
#: bits of pg_trigger.tgtype
_ROW, _BEFORE, _DELETE, _UPDATE, _TRUNCATE = 1, 2, 8, 16, 32
_TYPES: Final = {
    "audit_event_no_change": _BEFORE | _UPDATE | _TRUNCATE,
    "audit_event_no_delete": _ROW | _BEFORE | _DELETE,
    "audit_checkpoint_no_change": _BEFORE | _UPDATE | _DELETE | _TRUNCATE,
}


def trigger_differences(connection: Connection) -> Iterator[AuditDifference]:
    """Find triggers that are missing, changed, switched off, or not of this software."""
    sqlite = connection.dialect.name == "sqlite"
    wanted = _wanted_sqlite() if sqlite else _wanted_postgresql()
    found = _of_sqlite(connection) if sqlite else _of_postgresql(connection)
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield _difference(name, "is missing: rows could be changed or deleted")
        elif name not in wanted:
            yield _difference(name, "is not of this software and may change what is written")
        elif wanted[name] != found[name]:
            yield _difference(name, "is not as this software made it, or is switched off")


def _difference(name: str, what: str) -> AuditDifference:
    return AuditDifference(
        kind="trigger", subject=name, sentence=f"the trigger {name} of the database {what}"
    )


def _wanted_sqlite() -> Mapping[str, object]:
    return SQLITE


def _of_sqlite(connection: Connection) -> Mapping[str, object]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    rows = connection.execute(text(query)).all()
    return {str(name): sql for name, sql in rows}


def _wanted_postgresql() -> Mapping[str, object]:
    return {
        name: (table, _TYPES[name], "O", function, POSTGRESQL_FUNCTIONS[function])
        for name, table, _, _, function in POSTGRESQL
    }


def _of_postgresql(connection: Connection) -> Mapping[str, object]:
    query = (
        "SELECT t.tgname, c.relname, t.tgtype, t.tgenabled, p.proname, p.prosrc "
        "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE NOT t.tgisinternal AND n.nspname = current_schema()"
    )
    return {
        name: (table, kind, _as_text(enabled), function, body.strip())
        for name, table, kind, enabled, function, body in connection.execute(text(query))
    }


def _as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
