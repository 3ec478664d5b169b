"""What keys use, by day. A line of its own: these tables know nothing of the jobs'."""

import sqlalchemy as sa
from alembic import op

revision = "usage_0001"
down_revision = None
branch_labels = ("usage",)


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("key_name", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("audio_seconds", sa.Double, nullable=False),
        sa.Column("compute_seconds", sa.Double, nullable=False),
    )
