"""Studies so small that a whole node is done with one in a second: the load of the fault tests.

One synthetic study is drawn, thinned out, and given other identifiers again and again. Its slices
come in an order in which no series is whole before the last round, so that a sender who is cut off
and comes back has not finished any.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from converters import phantom
from converters.mr_writer import derived_uid
from converters.volume import Grid, Volume

_SLICES = 11  # of each series
_SLICE_SPACING_MM = 9.5  # what is just taken; heads come out lower than they were drawn
_STEP = 4  # every so many rows and columns


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallStudy:
    """One study; `instances` in the order in which they are to be sent."""

    study_instance_uid: str
    instances: tuple[Dataset, ...]

    @property
    def sop_instance_uids(self) -> set[str]:
        """Whatever it holds."""
        return {str(ds.SOPInstanceUID) for ds in self.instances}


class SmallStudies:
    """Makes studies by number; the same number gives the same study.

    Parameters
    ----------
    folder : Path
        Where the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        study = phantom.make_study(0, size="small")
        thin = {role: _thinned(volume) for role, volume in study.volumes.items()}
        series = [
            [dcmread(path) for path in phantom.write_series(volume, folder / role, series_number=n)]
            for n, (role, volume) in enumerate(thin.items(), start=2)
        ]
        first, second = ([one[at] for one in series] for at in (0, 1))
        rest = [ds for one in series for ds in one[2:]]
        self._pattern = [*first, *rest, *second]

    def written(self, number: int, folder: Path) -> list[Path]:
        """Write the study of a number; return its files in the order in which they are to come."""
        folder.mkdir(parents=True)
        paths: list[Path] = []
        for ds in self.study(number).instances:
            paths.append(folder / f"{len(paths):03d}.dcm")
            ds.save_as(paths[-1], enforce_file_format=True)
        return paths

    def study(self, number: int) -> SmallStudy:
        """Return the study of a number."""
        instances = tuple(_renamed(ds, number) for ds in self._pattern)
        uid = str(instances[0].StudyInstanceUID)
        return SmallStudy(study_instance_uid=uid, instances=instances)


def _thinned(volume: Volume) -> Volume:
    matrix = volume.grid.index_to_lps_mm.copy()
    matrix[:3, 0] *= _SLICE_SPACING_MM / np.linalg.norm(matrix[:3, 0])
    matrix[:3, 1:3] *= _STEP
    values = volume.intensities[:: volume.grid.shape[0] // _SLICES, ::_STEP, ::_STEP]
    grid = Grid(
        shape=values.shape,
        index_to_lps_mm=matrix,
        frame_of_reference_uid=volume.grid.frame_of_reference_uid,
    )
    return Volume(intensities=values.copy(), grid=grid, role=volume.role)


def _renamed(ds: Dataset, number: int) -> Dataset:
    named = deepcopy(ds)
    for keyword in (
        *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    ):
        setattr(named, keyword, derived_uid(getattr(ds, keyword), "small", number))
    named.file_meta.MediaStorageSOPInstanceUID = named.SOPInstanceUID
    return named
