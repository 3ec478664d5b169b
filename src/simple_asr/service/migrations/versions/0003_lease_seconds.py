"""How long the lease of a job is: servers that share a store may differ in it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lease_seconds", sa.Double))
