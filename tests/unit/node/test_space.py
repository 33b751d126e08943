"""The sum of the spool is asked for at a pace that what it costs allows."""

from __future__ import annotations

from node.space import Meter


class _Reader:
    """A ledger whose sum takes a while, on a clock of its own."""

    def __init__(self) -> None:
        self.now, self.asked, self.takes_s = 100.0, 0, 0.0

    def spool_bytes(self) -> int:
        self.asked += 1
        self.now += self.takes_s
        return self.asked


def _meter(reader: _Reader) -> Meter:
    return Meter(reader, clock=lambda: reader.now)  # type: ignore[arg-type] # it asks one thing


def test_a_sum_is_good_for_a_second() -> None:
    reader = _Reader()
    meter = _meter(reader)
    assert [meter(), meter()] == [1, 1]
    reader.now += 0.9
    assert meter() == 1
    reader.now += 0.2
    assert meter() == 2


def test_a_sum_that_takes_long_is_asked_for_a_twentieth_of_the_time() -> None:
    reader = _Reader()
    reader.takes_s = 0.3
    meter = _meter(reader)
    meter()
    reader.now += 5.9
    assert meter() == 1
    reader.now += 0.2
    assert meter() == 2
