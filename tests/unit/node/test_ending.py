"""What SIGTERM asks for happens whatever the main thread is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from node.ending import when_told


@pytest.fixture
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    kept = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, kept, strict=True):
        signal.signal(number, handler)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_finds_the_main_thread_in_the_events_lock_is_heard(
    number: signal.Signals,
) -> None:
    told, names = threading.Event(), list[str]()

    def end(name: str) -> None:
        names.append(name)
        told.set()

    when_told(end)
    with told._cond:  # type: ignore[attr-defined]  # where `wait` stands for a moment
        signal.raise_signal(number)
    assert told.wait(10)
    assert names == [number.name]
