"""Where the recording of a job is to be had, where no file came with it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("audio_url", sa.Text))
