"""Target error and CPU seconds of registration against SimpleITK on the same known motions.

Run by hand: ``python -m tests.bench.bench_register``. Generated heads and, where it is there, the
registered real exam are moved by known motions of up to 15 degrees and 15 mm. SimpleITK (in the
``test`` extra) runs as one would set it up: Euler transform, Mattes information with 32 bins, 6 %
of the samples, three levels of shrinking, centres of mass for a start, copies of 2 mm.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import nifti
from converters.likeness import coarser
from converters.register import register
from converters.volume import Role, Volume
from tests import peers
from tests.moved_heads import FRAME, displaced, head, rigid, thick

_MOVED: tuple[Role, ...] = ("flair", "t1", "t2")
_NAMES = {"flair": "flair", "t1": "t1", "t1gd": "t1ce", "t2": "t2"}
_COPY_MM = 2.0
sitk: Any = importlib.import_module("SimpleITK")  # half of it has no types
Matrix = NDArray[np.float64]
Method = Callable[[Volume, Volume], Matrix]


@dataclass(frozen=True, kw_only=True, eq=False)
class Exam:
    """Four volumes that lie on each other, and points of the brain, LPS mm."""

    name: str
    volumes: Mapping[Role, Volume]
    points_mm: Matrix


def exams() -> Iterator[Exam]:
    """Return what is registered: whole, stripped, thick slices, and the real exam."""
    whole, stripped = head(21), head(22, has_skull=False)
    yield Exam(name="whole head, 1 mm", volumes=whole.volumes, points_mm=whole.brain_mm)
    yield Exam(name="stripped, 1 mm", volumes=stripped.volumes, points_mm=stripped.brain_mm)
    slices = {role: thick(volume, 0, 5) for role, volume in whole.volumes.items()}
    slices["t1gd"] = whole.volumes["t1gd"]
    yield Exam(name="whole head, 5 mm slices", volumes=slices, points_mm=whole.brain_mm)
    folder = peers.real_data_folder()
    if folder is not None:
        yield _real(folder / "tumour" / "Brats17_2013_27_1_GT")


def _real(folder: Path) -> Exam:
    volumes = {
        role: nifti.read_volume(
            next(folder.glob(f"*_{name}.nii.gz")), role=role, frame_of_reference_uid=FRAME
        )
        for role, name in _NAMES.items()
    }
    brain = np.argwhere(volumes["t1gd"].intensities > 0)[::997].astype(np.float64)
    points = volumes["t1gd"].grid.lps_mm(brain)
    return Exam(name="real exam, stripped, 1 mm", volumes=volumes, points_mm=points)


def ours(moving: Volume, reference: Volume) -> Matrix:
    """Return the motion that the node finds."""
    return register(moving, reference, largest_rotation_deg=90.0).lps_to_reference_lps_mm


def simple_itk(moving: Volume, reference: Volume) -> Matrix:
    """Return the motion that SimpleITK finds."""
    fixed, floating = (_image(coarser(one, _COPY_MM)) for one in (reference, moving))
    start = sitk.CenteredTransformInitializer(
        fixed,
        floating,
        sitk.Euler3DTransform(),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.06, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-4, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([3, 2, 1])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5, 0.0])
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, floating)
    origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
    pull = np.eye(4)
    for axis, unit in enumerate(np.eye(3)):
        pull[:3, axis] = np.array(found.TransformPoint(unit.tolist())) - origin
    pull[:3, 3] = origin
    return np.asarray(np.linalg.inv(pull), dtype=np.float64)


def _image(volume: Volume) -> Any:  # noqa: ANN401 - as the module
    image = sitk.GetImageFromArray(volume.intensities)
    spacing = np.array(volume.grid.spacing_mm)
    directions = volume.grid.index_to_lps_mm[:3, :3] / spacing
    image.SetSpacing(spacing[::-1].tolist())
    image.SetDirection(directions[:, ::-1].ravel().tolist())
    image.SetOrigin(volume.grid.index_to_lps_mm[:3, 3].tolist())
    return image


def measure(method: Method, exam: Exam, rounds: int) -> tuple[list[float], float]:
    """Return the mean target error of each registration and the CPU seconds of three."""
    errors, started = [], time.process_time()
    for seed in range(rounds):
        put_by = rigid(seed, 15.0, 15.0, exam.points_mm.mean(axis=0))
        for role in _MOVED:
            found = method(displaced(exam.volumes[role], put_by), exam.volumes["t1gd"])
            matrix = found @ put_by
            back = exam.points_mm @ matrix[:3, :3].T + matrix[:3, 3]
            errors.append(float(np.linalg.norm(back - exam.points_mm, axis=1).mean()))
    return errors, (time.process_time() - started) / rounds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    sys.stdout.write("exam | method | target error mm: median, largest | CPU s of three\n")
    for exam in exams():
        for name, method in (("node", ours), ("SimpleITK", simple_itk)):
            errors, cpu_s = measure(method, exam, rounds)
            sys.stdout.write(
                f"{exam.name} | {name} | {np.median(errors):.2f}, {max(errors):.2f} | {cpu_s:.1f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
