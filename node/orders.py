"""What operators order by HTTP: keys that make a repeated request the same one, and haste.

Haste is wanted of deliveries that wait for their next try; the process that has the jobs gives it.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from node import database, tables
from node.door_errors import OrderKeyReusedError

_order, _haste = tables.operator_order, tables.haste
_KEPT_S: Final = 86400.0


class OrderBook:
    """Orders in the ledger's database.

    Parameters
    ----------
    engine : Engine
        Of the ledger.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def note(self, key: str, order: str) -> bool:
        """Note an order under its key for a day; False when it was noted already.

        Raises
        ------
        OrderKeyReusedError
            Another order has the key.
        """
        now = database.clock(self._engine)
        with self._engine.begin() as connection:
            connection.execute(_order.delete().where(_order.c.ordered_at < now - _KEPT_S))
            known = connection.execute(
                sa.select(_order.c.content).where(_order.c.order_key == key)
            ).scalar()
            if known is not None and known != order:
                raise OrderKeyReusedError
            if known is None:
                values = {"order_key": key, "content": order, "ordered_at": now}
                connection.execute(_order.insert().values(values))
        return known is None

    def forget(self, key: str) -> None:
        """Forget an order that was refused: its next try is a new one."""
        with self._engine.begin() as connection:
            connection.execute(_order.delete().where(_order.c.order_key == key))

    def want_haste(self, case_id: str) -> None:
        """Have the deliveries of a case that wait for their next try tried now."""
        with self._engine.begin() as connection:
            connection.execute(_haste.delete().where(_haste.c.case_id == case_id))
            connection.execute(_haste.insert().values(case_id=case_id))

    def hasty(self) -> list[str]:
        """Return the cases that haste is wanted of."""
        with database.reading(self._engine) as connection:
            return list(connection.execute(sa.select(_haste.c.case_id)).scalars())

    def hastened(self, case_id: str) -> None:
        """Note that a case was given haste."""
        with self._engine.begin() as connection:
            connection.execute(_haste.delete().where(_haste.c.case_id == case_id))
