"""Add the processes of all machines, and what one of them does at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "executor",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("machine", sa.String(64), nullable=False),
        sa.Column("process", sa.String(32), nullable=False),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("beat_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_fenced", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "duty",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("duty")
    op.drop_table("executor")
