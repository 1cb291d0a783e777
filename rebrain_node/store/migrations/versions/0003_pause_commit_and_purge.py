"""Add paused destinations, requests for storage commitment and the time of a purge."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables and columns."""
    op.create_table(
        "paused_destination",
        sa.Column("destination", sa.String(32), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
    )
    op.create_table(
        "commitment",
        sa.Column("transaction_uid", sa.String(64), primary_key=True),
        sa.Column(
            "set_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("derived_set.id"),
            nullable=False,
            index=True,
        ),
        sa.Column("destination", sa.String(32), nullable=False),
        sa.Column("requested_at", sa.String(32), nullable=False),
        sa.Column("answered_at", sa.String(32), nullable=True),
    )
    for table in ("instance", "derived_instance"):
        op.add_column(table, sa.Column("purged_at", sa.String(32), nullable=True))


def downgrade() -> None:
    """Drop the tables and columns."""
    for table in ("derived_instance", "instance"):
        op.drop_column(table, "purged_at")
    op.drop_table("commitment")
    op.drop_table("paused_destination")
