"""Priorities, who sent a study, where its result goes, work items; indexes for what is asked."""

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
        if f"ix_{_CASE}_{column}" not in indexes:
            op.create_index(f"ix_{_CASE}_{column}", _CASE, [column])
    if "priority" not in {one["name"] for one in there.get_columns(_CASE)}:
        op.add_column(
            _CASE, sa.Column("priority", sa.String(8), nullable=False, server_default="normal")
        )
    if not there.has_table("sender"):
        op.create_table(
            "sender",
            sa.Column("study_instance_uid", sa.String(64), primary_key=True),
            sa.Column("calling_ae_title", sa.String(16), primary_key=True),
            sa.Column("called_ae_title", sa.String(16), primary_key=True),
            sa.Column("calling_address", sa.String(64), primary_key=True),
            sa.Column("seen_at", sa.Float, nullable=False),
        )
    if not there.has_table("case_route"):
        op.create_table(
            "case_route",
            sa.Column("case_id", sa.String(32), primary_key=True),
            sa.Column("rule", sa.String(64), nullable=False),
            sa.Column("destinations", sa.JSON, nullable=False),
            sa.Column("reference_role", sa.String(16), nullable=False),
        )
    if not there.has_table("workitem"):
        op.create_table(
            "workitem",
            sa.Column("uid", sa.String(64), primary_key=True),
            sa.Column("state", sa.String(16), nullable=False, index=True),
            sa.Column("transaction_uid", sa.String(64)),
            sa.Column("content", sa.JSON, nullable=False),
            sa.Column("performer", sa.String(32)),
            sa.Column("is_mirror", sa.Boolean, nullable=False),
            sa.Column("is_cancel_requested", sa.Boolean, nullable=False),
            sa.Column("created_at", sa.Float, nullable=False),
        )
    op.execute("UPDATE ledger_meta SET schema_version = 5")
