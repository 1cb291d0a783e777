"""Let a site decide what is quarantined, and measure how long the receiver has listened."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = {
    "sop_class_uid": 64,
    "series_instance_uid": 64,
    "study_instance_uid": 64,
    "transfer_syntax_uid": 64,
    "disputed_series_uid": 64,
    "decision": 16,
}


def upgrade() -> None:
    """Add the columns and the row of the receiver; what is quarantined awaits a decision."""
    for name, length in _COLUMNS.items():
        op.add_column("quarantine", sa.Column(name, sa.String(length), nullable=True))
    op.create_index("ix_quarantine_disputed_series_uid", "quarantine", ["disputed_series_uid"])
    op.execute(
        "UPDATE quarantine SET disputed_series_uid = (SELECT series_instance_uid FROM instance "
        "WHERE instance.sop_instance_uid = quarantine.sop_instance_uid)"
    )
    op.add_column("study", sa.Column("last_run", sa.Integer(), nullable=False, server_default="0"))
    listening = op.create_table(
        "listening",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("run_began_ms", sa.BigInteger(), nullable=False),
        sa.Column("listened_ms", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(listening, [{"id": 1, "run": 0, "run_began_ms": 0, "listened_ms": 0}])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("listening")
    op.drop_column("study", "last_run")
    op.drop_index("ix_quarantine_disputed_series_uid", "quarantine")
    for name in _COLUMNS:
        op.drop_column("quarantine", name)
