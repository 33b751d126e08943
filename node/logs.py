"""Structured logs: one JSON object a line on stdout, closed list of keys, no patient data.

Keys outside `KEYS` are dropped in production and raise in tests. Messages of foreign exceptions,
`warnings` and library loggers are reduced to type and place, because pydicom and its kin quote
element values in them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

KEYS = frozenset(
    {
        "event",
        "level",
        "time",
        "role",
        "pid",
        "case_id",
        "revision",
        "stage",
        "state",
        "attempt",
        "duration_s",
        "durations_s",
        "code",
        "sentence",
        "destination",
        "transport",
        "status",
        "instance_count",
        "failed_count",
        "series_count",
        "byte_count",
        "slice_count",
        "window_count",
        "port",
        "address",
        "model_id",
        "device",
        "runtime",
        "queue",
        "channel",
        "kind",
        "place",
        "library",
        "exit_code",
        "delay_s",
        "closed_by",
        "reason",
        "free_bytes",
        "signal",
        "path_count",
        "untold_count",
        "path",
    }
)

Logger = structlog.typing.FilteringBoundLogger
_strict = False


def _closed_keys(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    unknown = event.keys() - KEYS
    if unknown and _strict:
        raise KeyError(f"log keys outside the closed list: {sorted(unknown)}")
    for key in unknown:
        del event[key]
    return event


def _utc(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return event


def _with_role(
    role: str, _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["role"] = role
    return event


_EVERY_S = 1.0  # a place of a library tells

_QUOTING = ("nibabel.global",)
"""Loggers that write to stderr by handlers of their own, and quote the file they read."""


class _LibraryHandler(logging.Handler):
    """Report that a library complained, and where, without its words; a place once a second.

    A connection that brings garbage would otherwise fill the log with a line for every few bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due_at: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Log the place of a library's record, never its text."""
        place, now = f"{record.module}:{record.lineno}", time.monotonic()
        if now < self._due_at.get(place, 0.0):
            self._untold[place] += 1
            return
        self._due_at[place] = now + _EVERY_S
        untold = self._untold.pop(place, 0)
        get().log(
            max(record.levelno, logging.WARNING),
            "library.complained",
            library=record.name.split(".")[0],
            place=place,
            **({"untold_count": untold} if untold else {}),
        )


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    del message
    get().warning(
        "library.warned", kind=category.__name__, place=f"{filename.rsplit('/', 1)[-1]}:{lineno}"
    )


def configure(*, level: str = "INFO", role: str = "main", strict: bool = False) -> None:
    """Set up logging of this process; `strict` makes an unknown key raise (tests)."""
    global _strict  # noqa: PLW0603 - one process, one configuration
    _strict = strict
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            partial(_with_role, role),
            _utc,
            _closed_keys,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)
    for name in _QUOTING:
        logging.getLogger(name).disabled = True
    warnings.showwarning = _warned  # type: ignore[assignment]


def log_crashes() -> None:
    """Log what ends a thread or the process as one line, instead of a traceback with its words."""
    sys.excepthook = _crashed
    threading.excepthook = _crashed_thread


def get() -> Logger:
    """Return the process's logger."""
    logger: Logger = structlog.get_logger()
    return logger


def _crashed(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """Log an error that ends the process or a thread: what and where, none of its words."""
    if issubclass(kind, KeyboardInterrupt):
        return
    get().error("process.crashed", kind=kind.__name__, place=_places(error))


def _crashed_thread(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)


def place_of(error: BaseException) -> str:
    """Return ``file:line`` of where an error was raised, free of any value."""
    return _places(error).rsplit(" > ", 1)[-1]


def _places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{Path(one.filename).name}:{one.lineno}" for one in frames) or "unknown"
