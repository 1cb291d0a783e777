"""Add the signed manifest of each derived set."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column."""
    op.add_column("derived_set", sa.Column("manifest", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("derived_set", "manifest")
