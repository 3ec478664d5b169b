"""How a result is written, where the parameters of a job do not say all of it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("answer_shape", sa.Text))
