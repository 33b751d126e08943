"""Whether a destination answers now: for the command line, `doctor`, the pages and the API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from converters.errors import CodedError
from node.cases import Transport
from node.errors import NodeError
from node.peers import Destination

PATIENCE_S: Final = 5.0
"""How long a destination may be silent where somebody waits for what it says."""
ANSWERS: Final = {
    Transport.DIMSE: "answers C-ECHO",
    Transport.STOW: "answers QIDO-RS",
    Transport.FOLDER: "is there and can be written",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of asking a destination, and how long that took; without a code it is there."""

    name: str
    transport: str
    duration_s: float
    code: str | None = None
    sentence: str | None = None
    advice: str | None = None


def ask(
    destination: Destination, *, calling_ae_title: str, patience_s: float | None = None
) -> Answer:
    """Return what comes of asking a destination in the way in which it gets results.

    Parameters
    ----------
    destination : Destination
        Which one.
    calling_ae_title : str
        Of this node.
    patience_s : float, optional
        How long it may be silent, where that is less than its own `timeout_s`.
    """
    from node.deliver import routes  # noqa: PLC0415 - brings what a web process seldom needs

    if patience_s is not None:
        limits = {"timeout_s": min(destination.timeout_s, patience_s)}
        destination = destination.model_copy(update=limits)
    started = time.monotonic()
    error = None
    try:
        routes.echo(destination, calling_ae_title=calling_ae_title)
    except NodeError as refusal:
        error = refusal
    return answer_of(destination, time.monotonic() - started, error)


def answer_of(destination: Destination, duration_s: float, error: CodedError | None) -> Answer:
    """Return what is said of a destination that was asked."""
    return Answer(
        name=destination.name,
        transport=destination.transport.value,
        duration_s=round(duration_s, 3),
        code=None if error is None else error.code,
        sentence=None if error is None else str(error),
        advice=None if error is None else error.advice,
    )
