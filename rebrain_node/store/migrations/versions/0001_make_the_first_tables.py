"""Make the first tables, and the triggers that keep the audit log append-only."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

#: hash of the chain before its first row
_GENESIS = "0" * 64

_SQLITE_UP = tuple(
    f"CREATE TRIGGER audit_event_no_{verb} BEFORE {verb} ON audit_event "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for verb in ("update", "delete")
)
_POSTGRESQL_UP = (
    (
        "CREATE FUNCTION audit_event_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    ),
    (
        "CREATE TRIGGER audit_event_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_event_append_only()"
    ),
)


def upgrade() -> None:
    """Make all tables."""
    _audit()
    _ledger()
    _outbox()


def downgrade() -> None:
    """Remove all tables, the audit log with them."""
    for table in (
        "delivery", "derived_instance", "derived_set",
        "quarantine", "instance", "series", "study",
        "audit_head", "audit_event",
    ):  # fmt: skip
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_event_append_only()")


def _key(name: str = "id", **options: Any) -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, primary_key=True, **options)


def _text(name: str, length: int | None = None, **options: Any) -> sa.Column[Any]:
    return sa.Column(
        name, sa.String(length) if length else sa.Text(), **{"nullable": False, **options}
    )


def _number(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), **{"nullable": False, **options})


def _big(name: str, *reference: sa.ForeignKey, **options: Any) -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite") if reference else sa.BigInteger()
    return sa.Column(name, kind, *reference, nullable=False, **options)


def _uid(name: str, *reference: sa.ForeignKey, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String(64), *reference, **{"nullable": False, **options})


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _audit() -> None:
    op.create_table(
        "audit_event",
        _key("sequence", autoincrement=False),
        _text("recorded_at", 32),
        _big("monotonic_ns"),
        _text("event", 64, index=True),
        _text("subject", index=True),
        _text("details"),
        _text("hash", 64),
    )
    head = op.create_table(
        "audit_head",
        _number("id", primary_key=True, autoincrement=False),
        _big("sequence"),
        _text("hash", 64),
    )
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "hash": _GENESIS}])
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRESQL_UP if postgresql else _SQLITE_UP:
        op.execute(statement)


def _ledger() -> None:
    study = "study.study_instance_uid"
    op.create_table(
        "study",
        _uid("study_instance_uid", primary_key=True),
        _text("state", 16, index=True),
        _number("instance_count"),
        _big("last_ledger_id"),
    )
    op.create_table(
        "series",
        _uid("series_instance_uid", primary_key=True),
        _uid("study_instance_uid", sa.ForeignKey(study), index=True),
        _text("state", 16, index=True),
        _number("revision"),
        _number("instance_count"),
        _text("completeness", 16, nullable=True),
        _json("findings"),
        _json("explanation"),
        _text("changed_at", 32),
    )
    op.create_table(
        "instance",
        _key(),
        _uid("sop_instance_uid", unique=True),
        _uid("sop_class_uid"),
        _uid("series_instance_uid", sa.ForeignKey("series.series_instance_uid"), index=True),
        _uid("study_instance_uid", sa.ForeignKey(study), index=True),
        _uid("transfer_syntax_uid"),
        _text("sha256", 64),
        _big("size_bytes"),
        _text("path"),
        _text("calling_ae_title", 16),
        _text("received_at", 32),
    )
    op.create_table(
        "quarantine",
        _key(),
        _uid("sop_instance_uid"),
        _text("sha256", 64),
        _big("size_bytes"),
        _text("path"),
        _text("calling_ae_title", 16),
        _text("reason", 32),
        _text("received_at", 32),
        sa.UniqueConstraint("sop_instance_uid", "sha256"),
    )


def _outbox() -> None:
    op.create_table(
        "derived_set",
        _key(),
        _uid("source_series_uid", sa.ForeignKey("series.series_instance_uid")),
        _uid("study_instance_uid"),
        _number("revision"),
        _json("provenance"),
        _text("created_at", 32),
        sa.UniqueConstraint("source_series_uid", "revision"),
    )
    op.create_table(
        "derived_instance",
        _key(),
        _big("set_id", sa.ForeignKey("derived_set.id")),
        _number("position"),
        _text("kind", 8),
        _uid("sop_class_uid"),
        _uid("sop_instance_uid", unique=True),
        _uid("series_instance_uid"),
        _text("sha256", 64),
        _big("size_bytes"),
        sa.UniqueConstraint("set_id", "position"),
    )
    op.create_table(
        "delivery",
        _key(),
        _big("set_id", sa.ForeignKey("derived_set.id"), index=True),
        _big("derived_instance_id", sa.ForeignKey("derived_instance.id")),
        _text("destination", 32),
        _text("state", 16, index=True),
        _number("status", nullable=True),
        _number("attempts"),
        _text("reason", nullable=True),
        _text("changed_at", 32),
        sa.UniqueConstraint("derived_instance_id", "destination"),
    )
