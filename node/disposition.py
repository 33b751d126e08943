"""The one table: which failure has which consequence."""

from __future__ import annotations

from enum import StrEnum

from converters.errors import CodedError, EncodingError, InputRejectedError
from inference.errors import (
    DeviceMemoryError,
    InputUnfitError,
    InvalidOutputError,
    ModelUnusableError,
    PredictionStoppedError,
)
from node.cases import CaseState, Ending
from node.errors import (
    CaseDeadlineError,
    LedgerUnavailableError,
    PeerRefusedError,
    PeerUnavailableError,
    SpoolFullError,
    SpoolUnwritableError,
)


class Disposition(StrEnum):
    """What follows a failure."""

    REJECT = "reject"
    RETRY = "retry"
    INVESTIGATE = "investigate"


TABLE: tuple[tuple[type[CodedError], Disposition], ...] = (
    (InputRejectedError, Disposition.REJECT),
    (InputUnfitError, Disposition.REJECT),
    (EncodingError, Disposition.INVESTIGATE),
    (DeviceMemoryError, Disposition.RETRY),
    (ModelUnusableError, Disposition.INVESTIGATE),
    (InvalidOutputError, Disposition.INVESTIGATE),
    (PredictionStoppedError, Disposition.INVESTIGATE),
    (PeerUnavailableError, Disposition.RETRY),
    (SpoolFullError, Disposition.RETRY),
    (SpoolUnwritableError, Disposition.RETRY),
    (LedgerUnavailableError, Disposition.RETRY),
    (CaseDeadlineError, Disposition.REJECT),
    (PeerRefusedError, Disposition.INVESTIGATE),
)


def of(error: Exception) -> Disposition:
    """Return what follows `error`; an unforeseen one is to be investigated."""
    for kind, disposition in TABLE:
        if isinstance(error, kind):
            return disposition
    return Disposition.INVESTIGATE


def ending_of(error: CodedError, state: CaseState) -> Ending:
    """Return how a case ends by an error."""
    return Ending(state=state, code=error.code, sentence=str(error), advice=error.advice)
