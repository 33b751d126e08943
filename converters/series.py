"""The instances of one series to a volume: read, split into acquisitions, check, sort, load.

The gate refuses what is no evenly spaced stack of parallel slices and says which slice and why.
Slices and instances are counted from 0: `instance` and the slices of a mixed series in the order
of arrival, the slices of an uneven one in the order along the normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from converters import fallback, gate, multiframe, pixels
from converters.errors import InputRejectedError, PartUnknownError, PixelDecodeError
from converters.gate import Limits
from converters.headers import read_header
from converters.multiframe import Spread
from converters.parts import Group, split
from converters.slices import Slices, read_slices, stacked
from converters.volume import Grid, Role, Volume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices of one series in order, checked.

    Parameters
    ----------
    headers : tuple of Dataset
        Elements before the pixels, ascending along row cosines x column cosines.
    files : tuple of Path
        The instances in the same order.
    frames : tuple of int
        Number of each slice's frame within its file, from 1; 0 in a classic instance.
    grid : Grid
        Where the voxels lie; its frame of reference is empty where the series names none.
    """

    headers: tuple[Dataset, ...]
    files: tuple[Path, ...]
    frames: tuple[int, ...]
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One acquisition of a series; most series hold exactly one.

    Parameters
    ----------
    name : str
        '' where the series holds one acquisition; otherwise DICOM keywords with numbers or
        ordinals that tell it from the others, such as ``EchoTime=90``. The same instances give the
        same names, in any order.
    headers : tuple of Dataset
        One per slice, classic keywords at the top level whatever the instance is.
    files : tuple of Path
        The instance of each slice.
    frames : tuple of int
        As in `Stack`.
    slices : Slices, optional
        What the headers say of the geometry, where that has been read.
    fault : InputRejectedError, optional
        Why the instances could not be taken apart into slices.
    """

    name: str
    headers: tuple[Dataset, ...]
    files: tuple[Path, ...]
    frames: tuple[int, ...]
    slices: Slices | None = None
    fault: InputRejectedError | None = None

    def stack(self, limits: Limits | None = gate.DEFAULT) -> Stack:
        """Return the slices as a checked stack.

        Parameters
        ----------
        limits : Limits, optional
            What a head may measure; with None any even stack will do.

        Raises
        ------
        MultiFrameError, MosaicError, ConcatenationIncompleteError, HeaderUnreadableError
            As `multiframe.spread`.
        TooFewSlicesError, MissingAttributeError
            As `slices.read_slices`.
        InputRejectedError
            The slices are not evenly spaced and parallel (`slices.stacked`), or are no head
            (`gate.check_grid`).
        """
        if self.fault is not None:
            raise self.fault.placed()
        order, grid = stacked(self.slices or read_slices(self.headers))
        if limits is not None:
            gate.check_grid(grid, limits)
        return Stack(
            headers=tuple(self.headers[index] for index in order),
            files=tuple(self.files[index] for index in order),
            frames=tuple(self.frames[index] for index in order),
            grid=grid,
        )


def parts(headers: Sequence[Dataset], files: Sequence[Path]) -> tuple[Part, ...]:
    """Return the acquisitions that a series holds, at least one.

    Parameters
    ----------
    headers : sequence of Dataset
        Elements before the pixels of every instance of one series, in any order.
    files : sequence of Path
        The instances in the same order.

    Notes
    -----
    Nothing is raised here: what is wrong with an acquisition, its `stack` says.
    """
    found = Spread(headers=tuple(headers), files=tuple(files), frames=(0,) * len(headers))
    try:
        found = multiframe.spread(headers, files)
        slices = read_slices(found.headers)
    except InputRejectedError as fault:
        return (
            Part(
                name="",
                headers=found.headers,
                files=found.files,
                frames=found.frames,
                fault=fault,
            ),
        )
    return tuple(_part(found, slices, group) for group in split(found.headers, slices))


def _part(found: Spread, slices: Slices, group: Group) -> Part:
    return Part(
        name=group.name,
        headers=tuple(found.headers[index] for index in group.members),
        files=tuple(found.files[index] for index in group.members),
        frames=tuple(found.frames[index] for index in group.members),
        slices=slices.of(group.members),
    )


def stack(paths: Sequence[Path], part: str = "", limits: Limits | None = gate.DEFAULT) -> Stack:
    """Return one acquisition of a series as a checked stack.

    Parameters
    ----------
    paths : sequence of Path
        All instances of the series, in any order.
    part : str
        Which of its acquisitions; '' where it holds only one.
    limits : Limits, optional
        As in `Part.stack`.

    Raises
    ------
    PartUnknownError
        The series holds no acquisition of that name.
    InputRejectedError
        As `read_headers` and `Part.stack`; where '' stands for several, why they are no stack.
    """
    return stack_headers(read_headers(paths), paths, part, limits)


def read_headers(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """Return the elements before the pixels of each file.

    Raises
    ------
    HeaderUnreadableError
        A file is not DICOM or is damaged.
    """
    return tuple(read_header(path, instance=instance) for instance, path in enumerate(paths))


def stack_headers(
    headers: Sequence[Dataset],
    files: Sequence[Path],
    part: str = "",
    limits: Limits | None = gate.DEFAULT,
) -> Stack:
    """Return one acquisition of headers already read as a checked stack; raises as `stack`."""
    found = {one.name: one for one in parts(headers, files)}
    if part in found:
        return found[part].stack(limits)
    if not part:
        stacked(read_slices(multiframe.spread(headers, files).headers))
    raise PartUnknownError(count=len(found))


def load(stack: Stack, role: Role, limits: Limits | None = gate.DEFAULT) -> Volume:
    """Return the intensities of a stack.

    Parameters
    ----------
    stack : Stack
        Where they lie.
    role : str
        What the volume is to the model.
    limits : Limits, optional
        What a head's image may measure; with None any intensities will do.

    Raises
    ------
    PixelDecodeError, MissingAttributeError
        As `pixels.decode_stack`; for an encoding without a decoder `fallback` is asked first.
    InputRejectedError
        The intensities are no image of a head (`gate.check_volume`).
    """
    intensities = np.empty(stack.grid.shape, dtype=np.float32)
    try:
        pixels.decode_stack(intensities, stack.files, stack.headers, stack.frames)
    except PixelDecodeError as error:
        files = tuple(dict.fromkeys(stack.files))
        intensities[...] = fallback.intensities(files, stack.grid, error)
    volume = Volume(intensities=intensities, grid=stack.grid, role=role)
    if limits is not None:
        gate.check_volume(volume, limits)
    return volume
