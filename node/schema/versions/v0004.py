"""The tables as they were when steps between versions began; `node.tables` makes newer ones."""

from __future__ import annotations

revision = "0004"
down_revision = None


def upgrade() -> None:
    """Do nothing: what is older cannot be brought forward."""
