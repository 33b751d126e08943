"""Which acquisitions a series holds: echoes, time points, planes, stacks, kinds of image.

A series whose slices make up one stack is one acquisition. Where they do not, the fewest attributes
are looked for that explain it: those by whose values the slices fall into groups that are stacks.
Slices of different acquisitions are never put into one volume, and a gap within one acquisition
stays a gap: nothing is split to get rid of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from converters import geometry
from converters.attributes import optional_number, texts
from converters.errors import (
    DuplicateSliceError,
    InputRejectedError,
    IrregularSpacingError,
    MissingSliceError,
    MixedFrameOfReferenceError,
    MixedMatrixError,
    MixedOrientationError,
    ShearedStackError,
)
from converters.slices import MINIMUM_SLICES, Slices, stacked

Value: TypeAlias = float | tuple[str, ...]
Ranks: TypeAlias = NDArray[np.intp]

MOST_ATTRIBUTES: Final = 3
"""Echoes of kinds of image at time points; more would find a pattern in anything."""

LONGEST_NAME: Final = 64
"""Characters; what the ledger keeps."""

SAME_LINE_MM: Final = 1.0
"""Slices of one acquisition lie over one another to 0.1 mm; other stacks are far away."""

INTERLEAVED: Final = 1.5
"""A group whose gap is wider than that of all slices together, by this factor, is half of one."""

_MIXED: Final = (
    DuplicateSliceError,
    MixedFrameOfReferenceError,
    MixedMatrixError,
    MixedOrientationError,
)
_UNEVEN: Final = (IrregularSpacingError, MissingSliceError, ShearedStackError)


class _Attribute(NamedTuple):
    """What acquisitions may differ in; the first of the tags that is there counts.

    One that `varies` may differ within an acquisition, too: it explains that slices share a
    position, never that one is missing.
    """

    keyword: str
    tags: tuple[BaseTag, ...]
    is_number: bool = True
    varies: bool = False


def _attribute(*keywords: str, is_number: bool = True, varies: bool = False) -> _Attribute:
    return _Attribute(keywords[0], tuple(Tag(one) for one in keywords), is_number, varies)


_IMAGE_TYPE: Final = Tag("ImageType")
_ATTRIBUTES: Final = (
    _attribute("ImageType", is_number=False),
    _attribute("ComplexImageComponent", is_number=False),
    _attribute("EchoTime", "EffectiveEchoTime"),
    _attribute("EchoNumbers"),
    _attribute("InversionTime"),
    _Attribute(
        "DiffusionBValue", (Tag("DiffusionBValue"), Tag(0x0019, 0x100C), Tag(0x2001, 0x1003))
    ),
    _attribute("TemporalPositionIdentifier", "TemporalPositionIndex"),
    _attribute("StackID", is_number=False),
    _attribute("FlipAngle"),
    _attribute("RepetitionTime"),
    _attribute("AcquisitionNumber", varies=True),
    _attribute("TriggerTime", "NominalCardiacTriggerDelayTime", varies=True),
    _attribute("ContrastBolusAgent", is_number=False, varies=True),
)
_PLANE: Final = "ImageOrientationPatient"


class Group(NamedTuple):
    """Slices of one acquisition, by index; '' is the name of the only one."""

    name: str
    members: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Difference:
    """An attribute in which the slices differ: a rank for each, a word for each rank."""

    keyword: str
    ranks: Ranks
    labels: tuple[str, ...]
    varies: bool = False
    is_plane: bool = False


def split(headers: Sequence[Dataset], slices: Slices) -> tuple[Group, ...]:
    """Return the acquisitions among the slices of a series; a single one where nothing tells.

    Parameters
    ----------
    headers : sequence of Dataset
        One per slice.
    slices : Slices
        Their geometry, in the same order.
    """
    whole = Group("", np.arange(len(slices)))
    fault = _fault(slices)
    if not isinstance(fault, (*_MIXED, *_UNEVEN)):
        return (whole,)
    differences = _differences(headers, slices)
    if isinstance(fault, _UNEVEN):
        differences = [one for one in differences if not one.varies]
    second_best: tuple[Group, ...] = ()
    for chosen in _choices(differences):
        groups = _groups(chosen)
        faults = _faults(groups, slices, is_plane=chosen[0].is_plane)
        if faults is None:
            continue
        if not any(faults):
            return groups
        if isinstance(fault, _MIXED) and not second_best and _is_helpful(faults, chosen):
            second_best = groups
    return second_best or (whole,)


def _fault(slices: Slices) -> InputRejectedError | None:
    try:
        stacked(slices)
    except InputRejectedError as error:
        return error
    return None


def _is_helpful(faults: Sequence[InputRejectedError | None], chosen: Sequence[_Difference]) -> bool:
    """Say whether groups of which some are no stack are better than no groups."""
    return None in faults or (len(chosen) == 1 and chosen[0].is_plane)


def _choices(differences: Sequence[_Difference]) -> Iterator[tuple[_Difference, ...]]:
    for size in range(1, MOST_ATTRIBUTES + 1):
        yield from combinations(differences, size)


def _groups(chosen: Sequence[_Difference]) -> tuple[Group, ...]:
    """Return the slices by their values, in the order of the values."""
    key = np.zeros_like(chosen[0].ranks)
    for one in chosen:
        _, key = np.unique(key * len(one.labels) + one.ranks, return_inverse=True)
    groups = [np.flatnonzero(key == number) for number in range(int(key.max()) + 1)]
    names = [
        " ".join(f"{one.keyword}={one.labels[one.ranks[members[0]]]}" for one in chosen)
        for members in groups
    ]
    if max(len(name) for name in names) > LONGEST_NAME:
        names = [f"Acquisition={number}" for number in range(1, len(names) + 1)]
    return tuple(Group(name, members) for name, members in zip(names, groups, strict=True))


def _faults(
    groups: Sequence[Group], slices: Slices, *, is_plane: bool
) -> list[InputRejectedError | None] | None:
    """Return why each group is no stack, None where the groups are no acquisitions.

    A few slices are an acquisition only where they lie in another plane: a localizer.
    """
    if min(len(one.members) for one in groups) < MINIMUM_SLICES and not is_plane:
        return None
    found: list[InputRejectedError | None] = []
    for one in groups:
        found.append(_fault(slices.of(one.members)))
        if isinstance(found[-1], _MIXED):
            return None
        if found[-1] is None and _is_interleaved(slices, one.members):
            return None
    return found


def _is_interleaved(slices: Slices, members: NDArray[np.intp]) -> bool:
    """Say whether slices of other groups lie between those of a stack, on the same line.

    Scanners acquire every other slice first and may count that as an acquisition of its own.
    """
    own, first = slices.of(members), int(members[0])
    normal = geometry.normal_of(slices.axes[first])
    away_mm = slices.positions_mm - slices.positions_mm[first]
    along_mm = away_mm @ normal
    off_mm = np.linalg.norm(away_mm - np.outer(along_mm, normal), axis=1)
    is_alike = (
        (np.abs(slices.axes - slices.axes[first]).max(axis=(1, 2)) < geometry.COSINE_TOLERANCE)
        & (slices.matrices == slices.matrices[first]).all(axis=1)
        & (off_mm < SAME_LINE_MM)
    )
    own_mm = np.sort(along_mm[members])
    is_within = (along_mm >= own_mm[0]) & (along_mm <= own_mm[-1])
    gaps_mm = np.diff(np.sort(along_mm[is_alike & is_within]))
    gaps_mm = np.sort(gaps_mm[gaps_mm > geometry.DUPLICATE_TOLERANCE_MM])
    usual_mm = float(gaps_mm[(len(gaps_mm) - 1) // 2])
    return float(own_mm[-1] - own_mm[0]) / (len(own) - 1) > INTERLEAVED * usual_mm


def _differences(headers: Sequence[Dataset], slices: Slices) -> list[_Difference]:
    """Return what slices differ in, the most telling first; of two that say the same, the first."""
    found: list[_Difference] = []
    seen: set[bytes] = set()
    for one in (*_of_geometry(slices), *_of_values(headers)):
        _, first, order = np.unique(one.ranks, return_index=True, return_inverse=True)
        partition = first[order].tobytes()
        if len(first) > 1 and partition not in seen:
            seen.add(partition)
            found.append(one)
    return sorted(found, key=lambda one: one.varies)


def _of_values(headers: Sequence[Dataset]) -> Iterator[_Difference]:
    for one in _ATTRIBUTES:
        read = _number if one.is_number else _words
        values = [read(header, one) for header in headers]
        ranks, labels = _ranked(values)
        yield _Difference(keyword=one.keyword, ranks=ranks, labels=labels, varies=one.varies)


def _number(header: Dataset, attribute: _Attribute) -> Value:
    for tag in attribute.tags:
        value = optional_number(header, tag)
        if value is not None:
            return float(f"{value:.6g}")  # the same time may be written in several ways
    return ()


def _words(header: Dataset, attribute: _Attribute) -> Value:
    words = texts(header, attribute.tags[0])
    if attribute.tags[0] == _IMAGE_TYPE:
        words = words[2:]
    return words if any(words) else ()


def _ranked(values: Sequence[Value]) -> tuple[Ranks, tuple[str, ...]]:
    """Return the rank of each value, and a label for each rank: a number, else the rank.

    Text of a header never becomes a label.
    """
    known = sorted(set(values), key=lambda value: (isinstance(value, tuple), value))
    rank_of = {value: rank for rank, value in enumerate(known)}
    ordinal = count(1)
    labels = tuple(
        f"{value:g}" if isinstance(value, float) else str(next(ordinal)) if value else "none"
        for value in known
    )
    return np.array([rank_of[value] for value in values], dtype=np.intp), labels


def _of_geometry(slices: Slices) -> Iterator[_Difference]:
    normals = np.cross(slices.axes[:, 0], slices.axes[:, 1])
    planes = np.abs(normals).argmax(axis=1)
    yield _numbered(_PLANE, planes[:, np.newaxis], is_plane=True)
    yield _numbered(_PLANE, _directions(slices)[:, np.newaxis])
    yield _numbered("Rows", slices.matrices)
    yield _numbered("PixelSpacing", np.round(slices.spacings_mm, 3))
    yield _numbered("FrameOfReferenceUID", slices.frames_of_reference[:, np.newaxis])


def _numbered(keyword: str, rows: NDArray[np.generic], *, is_plane: bool = False) -> _Difference:
    """Return rows of values by their ordinals."""
    known, ranks = np.unique(rows, axis=0, return_inverse=True)
    labels = tuple(str(number) for number in range(1, len(known) + 1))
    return _Difference(keyword=keyword, ranks=ranks.reshape(-1), labels=labels, is_plane=is_plane)


def _directions(slices: Slices) -> NDArray[np.intp]:
    """Return a number for each slice, the same for the same axes within the gate's tolerance."""
    rounded = np.round(slices.axes.reshape(-1, 6), 6)
    known, which = np.unique(rounded, axis=0, return_inverse=True)
    tolerance = float(np.radians(geometry.ORIENTATION_TOLERANCE_DEG)) / 2
    chosen: list[NDArray[np.float64]] = []
    number_of = []
    for axes in known:
        near = [at for at, one in enumerate(chosen) if np.abs(one - axes).max() <= tolerance]
        number_of.append(near[0] if near else len(chosen))
        if not near:
            chosen.append(axes)
    return np.array(number_of, dtype=np.intp)[which.reshape(-1)]
