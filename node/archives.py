"""What studies are pulled from, whichever way it is asked: the nouns that both ways share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pydicom.dataset import Dataset

from node.errors import NodeError
from node.receive.instance import Intake

Stop = Callable[[], bool]
"""Says that what is being fetched is no longer wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """The header of each instance of a series, by SOP Instance UID.

    Where the archive tells of no single image, they are copies of one (`is_sample`).
    """

    by_uid: Mapping[str, Dataset]
    is_sample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came at once: of each instance why it could not be stored, None where it is."""

    byte_count: int = 0
    outcomes: Sequence[NodeError | None] = field(default=())


class Lane(Protocol):
    """One connection that instances come by."""

    def take(self, series_instance_uid: str, instances: Sequence[str], stop: Stop) -> Taken:
        """Store instances of a series; nothing where `stop` says so before they are here.

        Raises
        ------
        NodeError
            The archive gives no usable answer.
        """
        ...


class Archive(Protocol):
    """A system that studies are pulled from; its methods raise a `NodeError` without an answer."""

    @property
    def name(self) -> str:
        """What it is called here."""
        ...

    @property
    def lane_count(self) -> int:
        """How many connections are opened at once."""
        ...

    def series(self, study_instance_uid: str) -> list[str]:
        """Return the Series Instance UIDs of a study that may be MR; none where it has no such."""
        ...

    def headers(self, study_instance_uid: str, series_instance_uid: str) -> Headers:
        """Return what is known of each instance of a series."""
        ...

    def batches(self, lacking: Sequence[str], whole: Sequence[str]) -> list[tuple[str, ...]]:
        """Return how what lacks of a series, of which `whole` is needed, is asked for."""
        ...

    def open_lane(self, study_instance_uid: str, intake: Intake) -> AbstractContextManager[Lane]:
        """Open a connection, for one thread."""
        ...
