"""The one table: which failure has which consequence."""

from __future__ import annotations

import pytest

from converters.errors import (
    CodedError,
    GridMismatchError,
    MissingSliceError,
    ReadBackError,
    RoleMissingError,
)
from inference.errors import ChannelMissingError, DeviceMemoryError, ModelUnusableError
from node import disposition
from node.cases import CaseState
from node.disposition import Disposition
from node.errors import (
    CaseDeadlineError,
    FolderUnavailableError,
    MemoryShortError,
    PeerRefusedError,
    PeerUnavailableError,
    SpoolFullError,
)
from node.settings import Delivery

EXPECTED: list[tuple[CodedError, Disposition]] = [
    (MissingSliceError(slice_index=3, gap_mm=5.0, expected_mm=2.5), Disposition.REJECT),
    (RoleMissingError(roles="t1gd", found="flair"), Disposition.REJECT),
    (ChannelMissingError(expected="flair", found="t1"), Disposition.REJECT),
    (DeviceMemoryError(window_count=2, voxels=100), Disposition.RETRY_BRIEFLY),
    (MemoryShortError(place="postprocess.py:3"), Disposition.RETRY_BRIEFLY),
    (PeerUnavailableError(destination="pacs", reason="refused"), Disposition.RETRY),
    (FolderUnavailableError(destination="share", reason="full"), Disposition.RETRY),
    (SpoolFullError(free_bytes=1, floor_bytes=2), Disposition.RETRY),
    (PeerRefusedError(destination="pacs", status="0xC000"), Disposition.INVESTIGATE),
    (CaseDeadlineError(missing="t2"), Disposition.REJECT),
    (ModelUnusableError(field="weights", reason="absent"), Disposition.INVESTIGATE),
    (GridMismatchError(reason="shape"), Disposition.INVESTIGATE),
    (ReadBackError(reason="labels"), Disposition.INVESTIGATE),
]


@pytest.mark.parametrize(("error", "expected"), EXPECTED, ids=lambda one: getattr(one, "code", ""))
def test_a_failure_has_its_consequence(error: CodedError, expected: Disposition) -> None:
    assert disposition.of(error) is expected


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), MemoryError()])
def test_an_unforeseen_failure_is_investigated(error: Exception) -> None:
    assert disposition.of(error) is Disposition.INVESTIGATE


@pytest.mark.parametrize(
    ("what", "most"),
    [(Disposition.RETRY, 5), (Disposition.RETRY_BRIEFLY, 3), (Disposition.INVESTIGATE, 1)],
)
def test_what_may_pass_is_tried_again_and_a_lack_of_memory_only_briefly(
    what: Disposition, most: int
) -> None:
    assert disposition.attempts_at_most(what, Delivery(max_attempts=5)) == most


def test_no_row_hides_a_later_one() -> None:
    kinds = [kind for kind, _ in disposition.TABLE]
    hidden = [
        later
        for at, later in enumerate(kinds)
        if any(issubclass(later, earlier) for earlier in kinds[:at])
    ]
    assert hidden == []


def test_an_ending_carries_what_the_error_says() -> None:
    error = SpoolFullError(free_bytes=1, floor_bytes=2)
    ending = disposition.ending_of(error, CaseState.FAILED)
    assert (ending.state, ending.code) == (CaseState.FAILED, "SPOOL_FULL")
    assert ending.sentence == "1 bytes are free, the floor is 2"
    assert ending.advice == error.advice
