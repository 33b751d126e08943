"""What the headers in the spool say about each acquisition of a study.

Reading is the expensive part of deciding: a `FactReader` reads a series of an open study again
only when instances of it have arrived since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from converters import gate, sequence_rules, sequences, series
from converters.errors import InputRejectedError, SeriesUnreadableError
from converters.gate import Limits
from converters.sequence_rules import Rule
from converters.series import Part
from converters.volume import Grid
from node.cases import ReceivedInstance
from node.casting import SeriesFacts
from node.spool import Spool

_PLANES: Final = ("sagittal", "coronal", "axial")  # by the patient axis that the normal is nearest
_OBLIQUE_DEG: Final = 10.0
_DESCRIPTION_LENGTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the site says of its series: rules of what they are, limits of what a head measures."""

    rules: tuple[Rule, ...] = ()
    limits: Limits = gate.DEFAULT


_ANY_SITE: Final = Site()


class FactReader:
    """Reads the facts of open studies and remembers them.

    Parameters
    ----------
    spool : Spool
        Where the instances are.
    site : Site
        What the site says of its series.
    """

    def __init__(self, spool: Spool, site: Site = _ANY_SITE) -> None:
        self._spool = spool
        self._site = site
        self._known: dict[str, dict[str, tuple[int, tuple[SeriesFacts, ...]]]] = {}

    def of(self, case_id: str, instances: Iterable[ReceivedInstance]) -> tuple[SeriesFacts, ...]:
        """Return the facts of an open case's study; instances are only ever added to it."""
        earlier = self._known.get(case_id, {})
        now: dict[str, tuple[int, tuple[SeriesFacts, ...]]] = {}
        for uid, many in by_series(instances).items():
            known = earlier.get(uid)
            if known is None or known[0] != len(many):
                known = len(many), facts_of(many, _files(many, self._spool), self._site)
            now[uid] = known
        self._known[case_id] = now
        return tuple(facts for _, parts in now.values() for facts in parts)

    def forget(self, case_id: str) -> None:
        """Drop what is remembered of a case that is closed."""
        self._known.pop(case_id, None)


def read_facts(
    instances: Iterable[ReceivedInstance], spool: Spool, site: Site = _ANY_SITE
) -> tuple[SeriesFacts, ...]:
    """Return what the headers say about each acquisition of a study."""
    many = by_series(instances).values()
    return tuple(facts for one in many for facts in facts_of(one, _files(one, spool), site))


def _files(instances: Iterable[ReceivedInstance], spool: Spool) -> list[Path]:
    return [spool.instance_path(instance.path) for instance in instances]


def by_series(
    instances: Iterable[ReceivedInstance],
) -> dict[str, tuple[ReceivedInstance, ...]]:
    """Return instances by series, in the order of their UIDs, whatever order they came in."""
    found: dict[str, list[ReceivedInstance]] = {}
    for one in sorted(instances, key=lambda one: one.sop_instance_uid):
        found.setdefault(one.series_instance_uid, []).append(one)
    return {uid: tuple(found[uid]) for uid in sorted(found)}


def facts_of(
    instances: tuple[ReceivedInstance, ...], files: Sequence[Path], site: Site
) -> tuple[SeriesFacts, ...]:
    """Return the facts of each acquisition that one series holds, at least one.

    `files` are those of the instances, in their order; whether they lie in the spool does not
    matter. Whatever is wrong with the series is a fault of it alone; only a file that is gone,
    which is the spool's own fault, raises ``OSError``.
    """
    try:
        return _facts(series.read_headers(files), instances, files, site)
    except OSError:
        raise
    except InputRejectedError as error:
        return (_faulty(first_readable(files), instances, site.rules, error),)
    except Exception as error:  # noqa: BLE001 - one series; its neighbours go on
        fault = SeriesUnreadableError(kind=type(error).__name__)
        return (_faulty(Dataset(), instances, (), fault),)


def facts_of_headers(
    headers: Sequence[Dataset], instances: tuple[ReceivedInstance, ...], site: Site
) -> tuple[SeriesFacts, ...]:
    """Return the facts of each acquisition of a series whose images are still elsewhere.

    `headers` are those of the instances, in their order, and `path` tells the instances apart.
    """
    try:
        return _facts(headers, instances, [Path(one.path) for one in instances], site)
    except Exception as error:  # noqa: BLE001 - one series; its neighbours go on
        fault = SeriesUnreadableError(kind=type(error).__name__)
        return (_faulty(Dataset(), instances, (), fault),)


def facts_of_sample(
    header: Dataset, instances: tuple[ReceivedInstance, ...], site: Site
) -> tuple[SeriesFacts, ...]:
    """Return the facts of a series by the header of one image, as if it were whole."""
    return (_faulty(header, instances, site.rules, None),)


def _facts(
    headers: Sequence[Dataset],
    instances: tuple[ReceivedInstance, ...],
    files: Sequence[Path],
    site: Site,
) -> tuple[SeriesFacts, ...]:
    return tuple(_part_facts(part, instances, site) for part in series.parts(headers, files))


def _part_facts(part: Part, instances: tuple[ReceivedInstance, ...], site: Site) -> SeriesFacts:
    header = part.headers[0]
    evidence = sequences.evidence_of(header)
    grid: Grid | None = None
    fault: InputRejectedError | None = None
    try:
        grid = part.stack(limits=None).grid  # said in words even where it is no head
        gate.check_grid(grid, site.limits)
    except InputRejectedError as error:
        fault = error
    return SeriesFacts(
        series_instance_uid=instances[0].series_instance_uid,
        part=part.name,
        description=evidence.description[:_DESCRIPTION_LENGTH],
        evidence=evidence,
        instances=instances,
        image_count=len(set(part.files)),
        slice_count=len(part.headers),
        grid=grid if fault is None else None,
        geometry=describe(grid, len(part.headers), evidence.physics.acquisition_type),
        ruling=sequence_rules.ruling(header, site.rules),
        fault=fault,
    )


def _faulty(
    header: Dataset,
    instances: tuple[ReceivedInstance, ...],
    rules: tuple[Rule, ...],
    fault: InputRejectedError | None,
) -> SeriesFacts:
    """Return the facts of a series that could not be, or is not yet, taken apart."""
    evidence = sequences.evidence_of(header)
    return SeriesFacts(
        series_instance_uid=instances[0].series_instance_uid,
        description=evidence.description[:_DESCRIPTION_LENGTH],
        evidence=evidence,
        instances=instances,
        geometry=describe(None, len(instances), ""),
        ruling=sequence_rules.ruling(header, rules),
        fault=fault,
    )


def first_readable(files: Sequence[Path]) -> Dataset:
    """Return the header of the first file that has one, an empty one when none has."""
    for file in files:
        try:
            (header,) = series.read_headers([file])
        except InputRejectedError:
            continue
        return header
    return Dataset()


def describe(grid: Grid | None, slice_count: int, acquisition_type: str) -> str:
    """Return how slices lie, such as ``44 slices, 0.94 x 0.94 x 5.50 mm, axial, 2-D``.

    Parameters
    ----------
    grid : Grid or None
        Where the voxels lie; None where the series is no volume.
    slice_count : int
        Slices that there are.
    acquisition_type : str
        MR Acquisition Type (0018,0023).
    """
    said = [f"{slice_count} slices" if slice_count > 1 else f"{slice_count} slice"]
    if grid is not None:
        slices_mm, rows_mm, columns_mm = grid.spacing_mm
        said += [f"{rows_mm:.2f} x {columns_mm:.2f} x {slices_mm:.2f} mm", _plane(grid)]
    if acquisition_type in ("2D", "3D"):
        said.append(f"{acquisition_type[0]}-D")
    return ", ".join(said)


def _plane(grid: Grid) -> str:
    step_mm = np.abs(grid.index_to_lps_mm[:3, 0])
    nearest = int(np.argmax(step_mm))
    turned_deg = np.degrees(np.arccos(min(step_mm[nearest] / np.linalg.norm(step_mm), 1.0)))
    oblique = f" {turned_deg:.0f} degrees oblique" if turned_deg >= _OBLIQUE_DEG else ""
    return f"{_PLANES[nearest]}{oblique}"
