"""Jobs and the segments they have so far."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.Double),
        sa.Column("num_segments", sa.Integer, nullable=False),
        sa.Column("seconds_done", sa.Double, nullable=False),
        sa.Column("seconds_before", sa.Double, nullable=False),
        sa.Column("duration", sa.Double),
        sa.Column("language", sa.String(16)),
        sa.Column("model", sa.Text),
        sa.Column("started", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("failure", sa.Text),
        sa.Column("transcript", sa.Text),
        sa.UniqueConstraint("owner", "idempotency_key"),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created"])
    op.create_index("jobs_by_state", "jobs", ["state", "created"])
    op.create_table(
        "segments",
        sa.Column(
            "job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("segment", sa.Text, nullable=False),
    )
