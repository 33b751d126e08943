"""One at a time, and nobody waits for ever."""

from __future__ import annotations

import itertools
import threading

import pytest

from node.turns import Turns
from tests.waiting import wait_until


def test_two_that_want_it_again_and_again_alternate() -> None:
    turns, order = Turns(), list[str]()
    both = threading.Barrier(2)

    def work(name: str) -> None:
        both.wait()
        for _ in range(50):
            with turns.turn():
                order.append(name)
                wait_until(lambda: len(turns._waiting) == 1 or is_last(name), 5.0, "the other")

    def is_last(name: str) -> bool:
        other = "b" if name == "a" else "a"
        return order.count(other) == 50

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(first != second for first, second in itertools.pairwise(order))


def test_only_one_holds_it_and_all_get_it() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert not turns._waiting


def test_an_error_gives_it_back() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn():
        _ = 1 / 0
    with turns.turn():
        assert turns._is_taken
