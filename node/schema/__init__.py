"""Tables of an older version become those of this one, by alembic, at the first start.

A new ledger is made whole from `node.tables`; only one that is there already comes here. The steps
are in ``versions``, one file for each version of the schema. alembic is imported when there is
something to do, and works inside the transaction that it is given: all steps, or none.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

OLDEST: Final = 4
"""The first version that can be brought forward."""


def upgrade(connection: Connection, found: int, wanted: int) -> None:
    """Bring the tables of a ledger from one version to another.

    Parameters
    ----------
    connection : Connection
        In a transaction that writes; it is left to the caller to commit.
    found, wanted : int
        Versions; `found` is at least `OLDEST` and below `wanted`.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "node:schema")
    config.attributes["connection"] = connection
    if not sa.inspect(connection).has_table("alembic_version"):
        command.stamp(config, f"{found:04d}")
    command.upgrade(config, f"{wanted:04d}")
