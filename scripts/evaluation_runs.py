"""One study through the real engine, as a node would: registered, masked, segmented, scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters import register
from converters.errors import CodedError
from converters.volume import Grid, LabelMap, Role, Volume
from inference import manifest, model
from inference.declarations import MissingInput
from inference.manifest import Manifest
from inference.model import LoadedModel
from inference.predict import predict
from scripts.evaluation_studies import REFERENCE_ROLE, Family, Labels, Study
from scripts.segmentation_scores import RegionScores, score_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured of one study.

    Parameters
    ----------
    study, family, kind, seed, reference_kind
        As in `Study`.
    missing : str
        The role that was kept from the model; '' for none.
    scores : mapping of region to RegionScores
        Empty without a reference. A refused study is scored as if nothing had been found.
    found_ml : mapping of region to float
        Volumes found.
    refusal : str
        Code and sentence of the error that ended it; '' where there was none.
    notes : tuple of str
        What the engine said about input and result.
    mask_source : str
        Who drew the brain mask.
    seconds : float
        Wall clock of the prediction, without registration.
    """

    study: str
    family: Family
    kind: str
    seed: int | None
    reference_kind: str
    missing: str
    scores: Mapping[str, RegionScores]
    found_ml: Mapping[str, float]
    refusal: str
    notes: tuple[str, ...]
    mask_source: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """A result with what a picture of it needs.

    Parameters
    ----------
    result : Result
        The figures.
    found : (slices, rows, columns) ndarray of uint8
        Labels on the grid of the T1gd.
    """

    result: Result
    found: Labels


class Engine:
    """The model as it is released, and once more with leave to lack any one input.

    Parameters
    ----------
    folder, mask_folder : Path
        The model and the brain mask network.
    threads : int
        CPU threads.
    """

    def __init__(self, folder: Path, mask_folder: Path, *, threads: int) -> None:
        self.manifest = manifest.load(folder)
        self._folders, self._threads = (folder, mask_folder), threads
        self._model = self._loaded(self.manifest)
        self._lenient: LoadedModel | None = None

    def _loaded(self, declared: Manifest) -> LoadedModel:
        return model.load(
            declared, device="cpu", threads=self._threads, mask_folder=self._folders[1]
        )

    def _allowing_any(self) -> LoadedModel:
        """Return the model with leave that its manifest withholds: to measure what it would cost.

        The copy is not validated: that the reference role may be missing is no manifest's right.
        """
        if self._lenient is None:
            leave = MissingInput(policy="zero", allowed=self.manifest.roles)
            self._lenient = self._loaded(self.manifest.model_copy(update={"missing_input": leave}))
        return self._lenient

    def run(self, study: Study, *, missing: Role = "") -> Outcome:
        """Return what the model finds in a study whose series lie in one frame, and its scores."""
        loaded = self._allowing_any() if missing else self._model
        volumes = [one for role, one in study.volumes.items() if role != missing]
        roles = [one.role for one in volumes]
        reference_role = REFERENCE_ROLE if REFERENCE_ROLE in roles else _finest(volumes).role
        found: Labels = np.zeros(study.grid.shape, np.uint8)
        notes: tuple[str, ...] = ()
        source, refusal = "", ""
        started = time.perf_counter()
        try:
            prediction = predict(volumes, loaded, reference_role=reference_role)
        except CodedError as error:
            refusal = f"{error.code}: {error}"
        else:
            found = on_grid(prediction.label_map, study.grid)
            notes = tuple(str(note) for note in prediction.notes)
            source = prediction.mask_source
        seconds = time.perf_counter() - started
        reference = np.zeros_like(found) if study.reference is None else study.reference
        measured = score_labels(found, reference, study.grid.spacing_mm)
        result = Result(
            study=study.name,
            family=study.family,
            kind=study.kind,
            seed=study.seed,
            reference_kind=study.reference_kind,
            missing=missing,
            scores={} if study.reference is None else measured,
            found_ml={name: one.found_ml for name, one in measured.items()},
            refusal=refusal,
            notes=notes,
            mask_source=source,
            seconds=seconds,
        )
        return Outcome(result=result, found=found)


def _finest(volumes: list[Volume]) -> Volume:
    return min(volumes, key=lambda one: one.grid.voxel_volume_mm3)


def on_grid(label_map: LabelMap, grid: Grid) -> Labels:
    """Return labels at the voxels of a grid of the same frame; the nearest voxel's, 0 outside."""
    if label_map.grid.is_same_place(grid):
        return label_map.labels
    to_index = np.linalg.inv(label_map.grid.index_to_lps_mm) @ grid.index_to_lps_mm
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    at = np.rint(index @ to_index[:3, :3].T + to_index[:3, 3]).astype(np.int64)
    is_inside = ((at >= 0) & (at < label_map.grid.shape)).all(axis=-1)
    at = np.clip(at, 0, np.subtract(label_map.grid.shape, 1))
    found = label_map.labels[at[..., 0], at[..., 1], at[..., 2]]
    return np.where(is_inside, found, np.uint8(0))


def registered(volumes: Mapping[Role, Volume]) -> dict[Role, Volume]:
    """Return volumes where they lie in the reference volume's frame, as a node moves them."""
    reference = volumes[REFERENCE_ROLE]
    return {
        role: volume
        if role == REFERENCE_ROLE
        else register.moved(volume, register.register(volume, reference), reference.grid)
        for role, volume in volumes.items()
    }
