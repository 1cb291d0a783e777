"""Add what the source of a series answered, and what its verdict of completeness rests on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table and the column."""
    op.create_table(
        "inquiry",
        sa.Column(
            "series_instance_uid",
            sa.String(64),
            sa.ForeignKey("series.series_instance_uid"),
            primary_key=True,
        ),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(32), nullable=True),
        sa.Column("began_ms", sa.BigInteger(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=True),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("equal", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("received", sa.Integer(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("missing", sa.Integer(), nullable=True),
    )
    op.add_column("series", sa.Column("completeness_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("series", "completeness_reason")
    op.drop_table("inquiry")
