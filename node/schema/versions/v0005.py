"""Indexes for what pages ask of many cases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_CASE = "imaging_case"
_INDEXED = ("opened_at", "last_received_at", "updated_at", "volumes_purged_at", "purged_at")


def upgrade() -> None:
    """Add what version 4 lacks; some of it stands in ledgers that ran between two versions."""
    there = sa.inspect(op.get_bind())
    indexes = {one["name"] for one in there.get_indexes(_CASE)}
    for column in _INDEXED:
        name = f"ix_{_CASE}_{column}"
        if name not in indexes:
            op.create_index(name, _CASE, [column])
    op.execute("UPDATE ledger_meta SET schema_version = 5")
