"""The nouns of telling sequences apart: what is judged, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from converters.sequence_evidence import SequenceEvidence
from converters.volume import Grid, Role


class Clue(NamedTuple):
    """One thing that speaks for a kind of sequence, or against it.

    Parameters
    ----------
    kind : str
        ``FLAIR``, ``T1``, ``T2``, or a kind that serves no role.
    weight : float
        Natural logarithm of the odds that it gives; below 0 it speaks against the kind.
    because : str
        Our own words; '' where the times say it.
    """

    kind: str
    weight: float
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What a series is; `role` is None for a sequence that serves none.

    Parameters
    ----------
    sequence : str
        ``FLAIR``, ``T1w``, ``T1gd``, ``T2w``, or ``other: `` and its kind.
    role : str or None
        What it could be to a model.
    score : float
        How certain, 0 to 1.
    reason : str
        Numbers and our own words, never text of the header.
    rival : str
        The sequence that comes next, '' for none.
    rival_score : float
        Its score.
    """

    sequence: str
    role: Role | None
    score: float
    reason: str
    rival: str = ""
    rival_score: float = 0.0

    @property
    def runner_up(self) -> str:
        """The rival with its score, such as ``T2w 0.20``."""
        return f"{self.rival} {self.rival_score:.2f}" if self.rival else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a rule of the site makes of a series; `role` is None where it serves none."""

    role: Role | None
    rule: str


class SeriesKey(NamedTuple):
    """Which acquisition of a study."""

    series_instance_uid: str
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An acquisition of the study.

    Parameters
    ----------
    series_instance_uid, part : str
        Which series, and which of its parts (`converters.series.Part`).
    evidence : SequenceEvidence
        What its headers say.
    slice_count : int
        Instances or frames.
    is_whole : bool
        Its geometry is a volume.
    grid : Grid, optional
        That volume's; None where it is not whole.
    ruling : Ruling, optional
        What a rule of the site says of it.
    """

    series_instance_uid: str
    part: str = ""
    evidence: SequenceEvidence
    slice_count: int
    is_whole: bool
    grid: Grid | None = None
    ruling: Ruling | None = None

    @property
    def key(self) -> SeriesKey:
        """Which acquisition this is."""
        return SeriesKey(self.series_instance_uid, self.part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of a candidate; `role` is None where it does not serve the model.

    `runner_up` is what else it could be, with that score, such as ``T2w 0.20``; '' for nothing.
    """

    series_instance_uid: str
    part: str = ""
    sequence: str
    role: Role | None
    score: float
    runner_up: str = ""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A candidate with what it is taken for."""

    candidate: Candidate
    found: Classification
