"""A minute's worth may come at once, and is given back evenly."""

from __future__ import annotations

from node import rates
from node.rates import Rates


class Clock:
    """A clock that goes by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_each_peer_has_its_own_minute() -> None:
    clock = Clock()
    limit = Rates(3, clock=clock)
    assert [limit.is_over("a") for _ in range(5)] == [False] * 3 + [True] * 2
    assert not limit.is_over("b")
    clock.now = 19.0
    assert limit.is_over("a")
    clock.now = 20.0
    assert [limit.is_over("a") for _ in range(2)] == [False, True]
    clock.now = 3600.0
    assert [limit.is_over("a") for _ in range(4)] == [False] * 3 + [True]


def test_without_a_limit_nobody_is_refused() -> None:
    limit = Rates(0)
    assert not any(limit.is_over("a") for _ in range(1000))


def test_no_number_of_peers_fills_the_memory() -> None:
    clock = Clock()
    limit = Rates(2, clock=clock)
    for number in range(3 * rates._MOST_PEERS):
        limit.is_over(str(number))
    assert len(limit._left) <= rates._MOST_PEERS
