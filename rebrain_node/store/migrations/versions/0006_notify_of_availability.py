"""Add what other systems are told about confirmed sets, and an index for counting deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table and the index."""
    op.create_table(
        "notification",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
        ),
        sa.Column(
            "set_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("derived_set.id"),
            nullable=False,
        ),
        sa.Column("destination", sa.String(32), nullable=False),
        sa.Column("receiver", sa.String(32), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("set_id", "destination", "receiver"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index("ix_notification_state", "notification", ["state"])
    op.create_index("ix_delivery_open", "delivery", ["state", "destination", "set_id"])
    op.drop_index("ix_delivery_state", "delivery")


def downgrade() -> None:
    """Drop them."""
    op.create_index("ix_delivery_state", "delivery", ["state"])
    op.drop_index("ix_delivery_open", "delivery")
    op.drop_table("notification")
