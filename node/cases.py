"""The nouns that pass between the stages, and the states a case goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from converters.volume import Role
from node.errors import IllegalTransitionError


class CaseState(StrEnum):
    """Where a case stands; each state names files that are synced in the spool."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    ASSEMBLED = "assembled"
    SEGMENTED = "segmented"
    ENCODED = "encoded"
    HELD = "held"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Stage(StrEnum):
    """A durable step of the pipeline; also the name of its queue."""

    CONVERT = "convert"
    SEGMENT = "segment"
    ENCODE = "encode"
    DELIVER = "deliver"


class ClosedBy(StrEnum):
    """Why no further instance is waited for."""

    COMPLETE = "complete"
    QUIET = "quiet"
    DEADLINE = "deadline"
    OPERATOR = "operator"


class Priority(StrEnum):
    """Whose turn comes first among cases that wait for the same stage."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ObjectKind(StrEnum):
    """What a derived DICOM object is; several kinds share a SOP class."""

    SEG = "seg"
    REPORT = "report"
    ENTROPY = "entropy"
    PICTURE = "picture"
    REGIONS = "regions"
    LABELMAP = "labelmap"
    PROBABILITIES = "probabilities"
    ALSO = "also"
    STRUCTURES = "rtstruct"


class Event(StrEnum):
    """What a site can have itself told of."""

    CASE_FAILED = "case.failed"
    CASE_HELD = "case.held"
    CASE_REJECTED = "case.rejected"
    DELIVERY_FAILED = "delivery.failed"


def also_name(role: Role) -> str:
    """Return the name of the file of a SEG on a further series, which serves a role."""
    return f"seg-{role}.dcm"


class Transport(StrEnum):
    """How a result travels."""

    DIMSE = "dimse"
    STOW = "stow"
    FOLDER = "folder"


# RECEIVING waits for images and HELD for a person; neither is worked on, neither is an end.
WORKING = (CaseState.COMPLETE, CaseState.ASSEMBLED, CaseState.SEGMENTED, CaseState.ENCODED)
FINAL = (
    CaseState.DELIVERED,
    CaseState.REJECTED,
    CaseState.FAILED,
    CaseState.CANCELLED,
    CaseState.SUPERSEDED,
)
NEEDING_INSTANCES = (
    CaseState.RECEIVING,
    CaseState.COMPLETE,
    CaseState.ASSEMBLED,
    CaseState.SEGMENTED,
)
_STOPPABLE = {CaseState.REJECTED, CaseState.FAILED, CaseState.CANCELLED, CaseState.SUPERSEDED}
_RESUMABLE = frozenset({CaseState.RECEIVING, *WORKING, CaseState.HELD, CaseState.SUPERSEDED})

MOVES: dict[CaseState, frozenset[CaseState]] = {
    CaseState.RECEIVING: frozenset({CaseState.COMPLETE} | _STOPPABLE),
    CaseState.COMPLETE: frozenset({CaseState.ASSEMBLED} | _STOPPABLE),
    CaseState.ASSEMBLED: frozenset({CaseState.SEGMENTED} | _STOPPABLE),
    CaseState.SEGMENTED: frozenset({CaseState.ENCODED, CaseState.HELD} | _STOPPABLE),
    CaseState.ENCODED: frozenset({CaseState.DELIVERED} | _STOPPABLE),
    CaseState.HELD: frozenset({CaseState.ENCODED} | _STOPPABLE),
    CaseState.DELIVERED: frozenset({CaseState.SUPERSEDED}),
    CaseState.REJECTED: _RESUMABLE,
    CaseState.FAILED: _RESUMABLE,
    CaseState.CANCELLED: _RESUMABLE,
    CaseState.SUPERSEDED: frozenset(),
}


def check_move(current: CaseState, wanted: CaseState) -> None:
    """Raise `IllegalTransitionError` unless the table allows the move."""
    if wanted not in MOVES[current]:
        raise IllegalTransitionError(current=current.value, wanted=wanted.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a case ended before its result was delivered."""

    state: CaseState
    code: str
    sentence: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One SOP instance that is durable in the spool.

    `path` is relative to the spool; `sha256` is the digest of the encoded data set.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    path: str
    byte_count: int
    sha256: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent instances of a study, as it named itself; empty where its door does not tell."""

    calling_ae_title: str
    called_ae_title: str = ""
    calling_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRoute:
    """Where the result of a case goes, decided when it was closed.

    `rule` is the route of the settings, empty where none held; `destinations` are names, and
    `models` the names of those that work on the study, None: all.
    """

    rule: str
    destinations: tuple[str, ...]
    reference_role: Role = ""
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDecision:
    """What one acquisition of the study was taken for, and why; `role` is None for *other*.

    `part` is '' where a series holds one acquisition; `geometry` says in words how its slices lie.
    """

    series_instance_uid: str
    part: str = ""
    description: str
    sequence: str
    role: Role | None
    score: float
    runner_up: str = ""
    reason: str
    geometry: str = ""
    instance_count: int
    is_whole: bool
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCount:
    """How many instances of a series the PACS says it holds."""

    modality: str
    instance_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledSeries:
    """One acquisition that serves as an input of the model.

    `instances` are all of the series; `part` says which of its acquisitions is meant.
    """

    series_instance_uid: str
    part: str = ""
    role: Role
    instances: tuple[ReceivedInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledCase:
    """A closed case: one series per input role, nothing more is waited for.

    `revision` counts the cases of one study and model, from 1.
    """

    case_id: str
    study_instance_uid: str
    series: tuple[AssembledSeries, ...]
    reference_role: Role
    closed_by: ClosedBy
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedObject:
    """A derived DICOM object's file, synced and checked; `path` is relative to the spool."""

    case_id: str
    kind: ObjectKind
    path: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    byte_count: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReceipt:
    """Proof that a destination holds the object; `committed_at` is when it promised to keep it."""

    case_id: str
    destination: str
    transport: Transport
    sop_instance_uid: str
    status_code: str
    attempt: int
    delivered_at: datetime
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What a destination answers about objects that it was asked to keep (PS3.4 J.3.3).

    `failures` are Failure Reasons (0008,1197) by SOP Instance UID.
    """

    transaction_uid: str
    committed: frozenset[str]
    failures: Mapping[str, int]
