"""Jobs that were sent together, and what each was called there."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("batch_id", sa.String(32)))
    op.add_column("jobs", sa.Column("batch_number", sa.Integer))
    op.add_column("jobs", sa.Column("name", sa.Text))
    op.create_index("jobs_by_batch", "jobs", ["batch_id", "batch_number"])
