"""Where the work going on stands, apart from how far any work ever got."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    column = sa.Column("resume_at", sa.Double, nullable=False, server_default="0")
    op.add_column("jobs", column)
    # Until now one column was both.
    op.execute("UPDATE jobs SET resume_at = seconds_done")
