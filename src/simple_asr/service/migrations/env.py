"""Alembic's way in: runs the migrations on the connection that `database.py` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
