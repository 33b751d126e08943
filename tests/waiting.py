"""The only place where a test waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T], timeout_s: float, what: str, *, poll_s: float = 0.05
) -> T:
    """Return the first truthy value of `predicate`.

    Raises
    ------
    TimeoutError
        It stayed falsy for `timeout_s`; the message says `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}; last seen: {value!r}")
        time.sleep(poll_s)
