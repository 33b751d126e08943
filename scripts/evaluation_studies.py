"""The studies that the demonstration model is measured on: generated, phantoms and real exams.

None of them is trained on. Real exams lie outside of the repository, in ``tumour/`` of the real
data (``NEUROSEG_REALDATA`` or ``../shared/realdata``), one folder each, told apart by their files:

- registered and stripped, with expert labels: ``*_flair``, ``*_t1``, ``*_t1ce``, ``*_t2`` and
  ``*_seg`` (BraTS: 1 non-enhancing core, 2 oedema, 3 or 4 enhancing);
- as it left the scanner: ``*_fla``, ``*_t1``, ``*_t1c`` and ``*_t2``, each on its own grid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from converters import nifti, phantom
from converters.volume import Grid, Role, Volume
from scripts.generated_studies import draw_study

Labels: TypeAlias = NDArray[np.uint8]
Family: TypeAlias = Literal["generated", "phantom", "real"]

REFERENCE_ROLE: Final = "t1gd"
FIRST_SEED: Final = 900_000_000
"""Seeds from here on are kept for evaluation; no training and no choice may use one."""
PHANTOM_KINDS: Final = ("stripped", "head", "healthy")

DRAWN: Final = "what the generator drew"
EXPERT: Final = "expert labels"
FUSED: Final = "fusion of five published models, placed by a rigid fit; not truth"

_ROOT: Final = Path(__file__).resolve().parents[1]
_FRAME: Final = "2.25.4711"
_STRIPPED: Final = {"flair": "_flair", "t1": "_t1", "t1gd": "_t1ce", "t2": "_t2"}
_NATIVE: Final = {"flair": "_fla", "t1": "_t1", "t1gd": "_t1c", "t2": "_t2"}
_BRATS_TO_OURS: Final = np.array([0, 2, 1, 3, 3], dtype=np.uint8)
# How an exam lies in the atlas of its fused labels: fitted once, the outline of those labels to the
# bright tissue of the exam's FLAIR and to no segmentation of this project; correlation 0.87.
_IN_ATLAS: Final = {
    "TCGA-FG-6692_native": ((12.5, -4.38, 8.46), (115.7, -101.54, 75.56), (3.1, -2.1, 25.7))
}
_ATTRIBUTION: Final = {
    "Brats17_2013": "BRATS 2013, Menze et al. 2015, CC BY-NC-SA 3.0",
    "TCGA": "TCIA, TCGA-LGG, CC BY 3.0",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """One study to be segmented, with what is known about it.

    Parameters
    ----------
    name : str
        Unique among the studies; names its picture.
    family : {"generated", "phantom", "real"}
        Where it comes from.
    kind : str
        ``stripped``, ``head``, ``thick``, ``healthy``; for real exams ``stripped`` or ``native``.
    seed : int or None
        What it was drawn from.
    volumes : mapping of role to Volume
        Each on its own grid.
    reference : ndarray of uint8 or None
        1 oedema, 2 non-enhancing core, 3 enhancing, on the grid of the T1gd.
    reference_kind : str
        Who says so; '' without a reference.
    is_to_register : bool
        Whether the series may lie elsewhere than their headers say.
    attribution : str
        What has to stand under a picture of it.
    """

    name: str
    family: Family
    kind: str
    volumes: Mapping[Role, Volume]
    reference: Labels | None
    reference_kind: str = ""
    seed: int | None = None
    is_to_register: bool = False
    attribution: str = ""

    @property
    def grid(self) -> Grid:
        """The grid on which results are wanted and the reference is given."""
        return self.volumes[REFERENCE_ROLE].grid


def generated(kind: str, seed: int) -> Study:
    """Return a held-out study of the training's generator."""
    drawn = draw_study(seed, kind=kind)
    return Study(
        name=f"generated-{kind}-{seed}",
        family="generated",
        kind=kind,
        seed=seed,
        volumes=drawn.volumes,
        reference=drawn.truth,
        reference_kind=DRAWN,
    )


def phantom_study(kind: str, seed: int) -> Study:
    """Return the demonstration's synthetic study, which no training draws from."""
    lesions = () if kind == "healthy" else None
    drawn = phantom.make_study(seed, has_skull=kind != "stripped", lesions=lesions)
    return Study(
        name=f"phantom-{kind}-{seed}",
        family="phantom",
        kind=kind,
        seed=seed,
        volumes=drawn.volumes,
        reference=drawn.truth[REFERENCE_ROLE],
        reference_kind=DRAWN,
    )


def real_data_folder() -> Path:
    """Return where real exams are looked for, whether it exists or not."""
    return Path(os.environ.get("NEUROSEG_REALDATA") or _ROOT.parent / "shared" / "realdata")


def real_exams(folder: Path) -> Iterator[Study]:
    """Yield the real exams in ``tumour/`` of a folder, by name; none where there is no such folder.

    Raises
    ------
    ValueError
        A folder there is no exam of a known form.
    """
    for one in sorted((folder / "tumour").glob("*/")):
        yield real_exam(one)


def real_exam(folder: Path) -> Study:
    """Return the exam in a folder; see the module for its forms and `real_exams` for errors."""
    is_stripped = any(folder.glob("*_t1ce.nii*"))
    names = _STRIPPED if is_stripped else _NATIVE
    volumes = {
        role: nifti.read_volume(_only(folder, ending), role=role, frame_of_reference_uid=_FRAME)
        for role, ending in names.items()
    }
    grid = volumes[REFERENCE_ROLE].grid
    reference, who = _reference(folder, grid)
    return Study(
        name=folder.name,
        family="real",
        kind="stripped" if is_stripped else "native",
        volumes=volumes,
        reference=reference,
        reference_kind=who,
        is_to_register=True,
        attribution=next(
            (text for start, text in _ATTRIBUTION.items() if folder.name.startswith(start)), ""
        ),
    )


def _only(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}.nii*"))
    if len(found) != 1:
        raise ValueError(f"{folder.name}: {len(found)} files *{ending}.nii*, expected one")
    return found[0]


def _reference(folder: Path, grid: Grid) -> tuple[Labels | None, str]:
    if any(folder.glob("*_seg.nii*")):
        return expert_labels_on(_only(folder, "_seg"), grid), EXPERT
    fused = folder / "model_labels_SRI24" / "simple.nii.gz"
    if folder.name in _IN_ATLAS and fused.is_file():
        return fused_labels_on(fused, folder.name, grid), FUSED
    return None, ""


def expert_labels_on(path: Path, grid: Grid) -> Labels:
    """Return labels in BraTS numbers, renumbered, at the voxels of a grid."""
    return _looked_up(path, grid.lps_mm(_index(grid)))


def fused_labels_on(path: Path, exam: str, grid: Grid) -> Labels:
    """Return labels that lie in atlas space, renumbered, at the voxels of an exam's grid."""
    turn_deg, atlas_centre_mm, exam_centre_mm = _IN_ATLAS[exam]
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    at = (grid.lps_mm(_index(grid)) - exam_centre_mm) @ turn.T + atlas_centre_mm
    return _looked_up(path, at)


def _index(grid: Grid) -> NDArray[np.float64]:
    return np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)


def _looked_up(path: Path, lps_mm: NDArray[np.float64]) -> Labels:
    """Return our labels at (..., 3) positions from a file in BraTS numbers; 0 outside."""
    image = nibabel.Nifti1Image.from_filename(path)
    labels = _BRATS_TO_OURS[np.asarray(image.dataobj).astype(np.int64)]
    inverse = np.linalg.inv(image.affine)
    ras_mm = lps_mm * [-1.0, -1.0, 1.0]
    at = np.rint(ras_mm @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
    is_inside = ((at >= 0) & (at < labels.shape)).all(axis=-1)
    at = np.clip(at, 0, np.subtract(labels.shape, 1))
    found = labels[at[..., 0], at[..., 1], at[..., 2]]
    return np.where(is_inside, found, np.uint8(0))
