"""Add signed checkpoints of the audit log; rows up to a seal may be deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SEALED = "(SELECT coalesce(max(sequence), 0) FROM audit_checkpoint WHERE kind = 'seal')"
_RAISE = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
_SQLITE_UP = (
    "DROP TRIGGER audit_event_no_delete",
    (
        "CREATE TRIGGER audit_event_no_delete BEFORE delete ON audit_event "
        f"WHEN OLD.sequence > {_SEALED} {_RAISE}"
    ),
    f"CREATE TRIGGER audit_checkpoint_no_update BEFORE update ON audit_checkpoint {_RAISE}",
    f"CREATE TRIGGER audit_checkpoint_no_delete BEFORE delete ON audit_checkpoint {_RAISE}",
)
_SQLITE_DOWN = (
    "DROP TRIGGER audit_event_no_delete",
    f"CREATE TRIGGER audit_event_no_delete BEFORE delete ON audit_event {_RAISE}",
)
_EXECUTE = "FOR EACH STATEMENT EXECUTE FUNCTION audit_event_append_only()"
_POSTGRESQL_UP = (
    "DROP TRIGGER audit_event_no_change ON audit_event",
    "CREATE TRIGGER audit_event_no_change BEFORE UPDATE OR TRUNCATE ON audit_event " + _EXECUTE,
    (
        "CREATE FUNCTION audit_event_delete_sealed() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"BEGIN IF OLD.sequence > {_SEALED} THEN "
        "RAISE EXCEPTION 'the audit log is append-only'; END IF; RETURN OLD; END $$"
    ),
    (
        "CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event "
        "FOR EACH ROW EXECUTE FUNCTION audit_event_delete_sealed()"
    ),
    "CREATE TRIGGER audit_checkpoint_no_change BEFORE UPDATE OR DELETE OR TRUNCATE "
    "ON audit_checkpoint " + _EXECUTE,
)
_POSTGRESQL_DOWN = (
    "DROP TRIGGER audit_event_no_delete ON audit_event",
    "DROP FUNCTION audit_event_delete_sealed()",
    "DROP TRIGGER audit_event_no_change ON audit_event",
    "CREATE TRIGGER audit_event_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event "
    + _EXECUTE,
)


def upgrade() -> None:
    """Create the table, and let the triggers know of it."""
    op.create_table(
        "audit_checkpoint",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, index=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signed_at", sa.String(32), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
    )
    for statement in _POSTGRESQL_UP if _is_postgresql() else _SQLITE_UP:
        op.execute(statement)


def downgrade() -> None:
    """Remove the table; the triggers are those of before."""
    for statement in _POSTGRESQL_DOWN if _is_postgresql() else _SQLITE_DOWN:
        op.execute(statement)
    op.drop_table("audit_checkpoint")


def _is_postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")
