"""Who is told of the end of a job, and how that goes."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("webhook_url", sa.Text))
    op.add_column("jobs", sa.Column("webhook_due", sa.Double))
    attempts = sa.Column("webhook_attempts", sa.Integer, nullable=False, server_default="0")
    op.add_column("jobs", attempts)
    op.add_column("jobs", sa.Column("webhook_failure", sa.Text))
    op.create_index("jobs_by_webhook", "jobs", ["webhook_due"])
