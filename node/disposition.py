"""The one table: which failure has which consequence."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from converters.errors import CodedError, EncodingError, InputRejectedError
from inference.errors import (
    DeviceMemoryError,
    InputUnfitError,
    InvalidOutputError,
    ModelUnusableError,
    PredictionStoppedError,
)
from node import logs
from node.cases import CaseState, Ending
from node.door_errors import SecretAbsentError, TlsUnusableError
from node.errors import (
    CaseDeadlineError,
    CommitmentFailedError,
    CommitmentMissingError,
    CommitmentRefusedError,
    FolderUnavailableError,
    LedgerUnavailableError,
    MemoryShortError,
    PeerRefusedError,
    PeerUnavailableError,
    SpoolFullError,
    SpoolUnwritableError,
    UnforeseenError,
)
from node.peers import Notify
from node.settings import Delivery


class Disposition(StrEnum):
    """What follows a failure."""

    REJECT = "reject"
    RETRY = "retry"
    RETRY_BRIEFLY = "retry briefly"
    INVESTIGATE = "investigate"


TABLE: tuple[tuple[type[CodedError], Disposition], ...] = (
    (InputRejectedError, Disposition.REJECT),
    (InputUnfitError, Disposition.REJECT),
    (EncodingError, Disposition.INVESTIGATE),
    (DeviceMemoryError, Disposition.RETRY_BRIEFLY),
    (ModelUnusableError, Disposition.INVESTIGATE),
    (InvalidOutputError, Disposition.INVESTIGATE),
    (PredictionStoppedError, Disposition.INVESTIGATE),
    (PeerUnavailableError, Disposition.RETRY),
    (TlsUnusableError, Disposition.RETRY),
    (SecretAbsentError, Disposition.RETRY),
    (FolderUnavailableError, Disposition.RETRY),
    (SpoolFullError, Disposition.RETRY),
    (SpoolUnwritableError, Disposition.RETRY),
    (LedgerUnavailableError, Disposition.RETRY),
    (MemoryShortError, Disposition.RETRY_BRIEFLY),
    (CaseDeadlineError, Disposition.REJECT),
    (PeerRefusedError, Disposition.INVESTIGATE),
    (CommitmentMissingError, Disposition.RETRY),
    (CommitmentFailedError, Disposition.RETRY),
    (CommitmentRefusedError, Disposition.INVESTIGATE),
)


_BRIEFLY: Final = 3  # whoever lacked memory three times will lack it again


def attempts_at_most(disposition: Disposition, delivery: Delivery) -> int:
    """Return how often a stage is tried that fails in this way."""
    limits = {
        Disposition.RETRY: delivery.max_attempts,
        Disposition.RETRY_BRIEFLY: min(_BRIEFLY, delivery.max_attempts),
    }
    return limits.get(disposition, 1)


def delay_s(attempt: int, waits: Delivery | Notify) -> float:
    """Return how long to wait after the attempt of that number (1, 2, ...)."""
    return min(waits.first_delay_s * 2.0 ** min(attempt - 1, 30), waits.longest_delay_s)


def of(error: Exception) -> Disposition:
    """Return what follows `error`; an unforeseen one is to be investigated."""
    for kind, disposition in TABLE:
        if isinstance(error, kind):
            return disposition
    return Disposition.INVESTIGATE


def ending_of(error: CodedError, state: CaseState) -> Ending:
    """Return how a case ends by an error."""
    return Ending(state=state, code=error.code, sentence=str(error), advice=error.advice)


def coded(error: Exception) -> CodedError:
    """Return a coded error as it is, and a foreign one as a code that holds none of its words."""
    if isinstance(error, CodedError):
        return error
    if isinstance(error, SQLAlchemyError):
        return LedgerUnavailableError(kind=type(error).__name__)
    if isinstance(error, MemoryError):
        return MemoryShortError(place=logs.place_of(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFullError(free_bytes=0, floor_bytes=0)
    return UnforeseenError(kind=type(error).__name__, place=logs.place_of(error))
