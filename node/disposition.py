"""The one table: which failure has which consequence."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

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
)
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


def of(error: Exception) -> Disposition:
    """Return what follows `error`; an unforeseen one is to be investigated."""
    for kind, disposition in TABLE:
        if isinstance(error, kind):
            return disposition
    return Disposition.INVESTIGATE


def ending_of(error: CodedError, state: CaseState) -> Ending:
    """Return how a case ends by an error."""
    return Ending(state=state, code=error.code, sentence=str(error), advice=error.advice)
