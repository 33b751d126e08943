"""A process is dead when its beat stands still, whatever the clock says that stamped it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from node import tables
from node.ledger import Ledger
from node.pulse import Pulses


def _beat(ledger: Ledger, *names: str, step_s: float = 0.0) -> None:
    for name in names:
        ledger.beat(name, role="work", host="here", pid=1)
        with ledger.engine.begin() as connection:
            seen_at = tables.worker.c.seen_at
            connection.execute(
                tables.worker.update()
                .where(tables.worker.c.executor_id == name)
                .values(seen_at=sa.type_coerce(seen_at, sa.Float) + step_s)
            )


@pytest.mark.parametrize("step_s", [-7200.0, 0.0, 7200.0])
def test_neither_is_a_live_process_taken_for_dead_nor_a_dead_one_for_alive(
    ledger: Ledger, step_s: float
) -> None:
    now = [0.0]
    pulses = Pulses(ledger.engine, lambda: now[0])
    _beat(ledger, "alive", "dead")
    assert pulses.alive(timeout_s=60.0) == {"alive", "dead"}
    for now[0] in (20.0, 40.0, 59.0):
        _beat(ledger, "alive", step_s=step_s)  # the clock was set after the first beat
        assert pulses.alive(timeout_s=60.0) == {"alive", "dead"}
    now[0] = 61.0
    assert pulses.alive(timeout_s=60.0) == {"alive"}
    _beat(ledger, "dead", step_s=step_s)
    assert pulses.alive(timeout_s=60.0) == {"alive", "dead"}
    now[0] = 125.0
    assert pulses.alive(timeout_s=60.0) == set()


def test_a_process_that_begins_gives_the_others_time_to_beat(ledger: Ledger) -> None:
    _beat(ledger, "other", step_s=-(10.0**6))
    now = [0.0]
    pulses = Pulses(ledger.engine, lambda: now[0])
    assert pulses.alive(timeout_s=60.0) == {"other"}
    now[0] = 61.0
    assert pulses.alive(timeout_s=60.0) == set()
