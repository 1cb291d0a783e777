"""Add the workitems of workflow managers that the node performs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "workitem",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
        ),
        sa.Column("manager", sa.String(32), nullable=False),
        sa.Column("workitem_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("claimed_at", sa.String(32), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("manager", "workitem_uid"),
        sa.UniqueConstraint("transaction_uid"),
    )
    op.create_index("ix_workitem_state", "workitem", ["state"])
    op.create_index("ix_workitem_study_instance_uid", "workitem", ["study_instance_uid"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("workitem")
