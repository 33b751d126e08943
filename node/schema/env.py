"""What alembic runs around the steps: the connection of `node.schema.upgrade`, nothing else."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
