"""Uploads for tests of predictions, and an infer role that answers at once."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from converters import phantom
from converters.phantom import ROLES, PhantomStudy
from converters.volume import Shape, Volume
from node.prediction_queue import PredictionQueue
from node.prediction_rows import Failure, PredictionRow
from tests.web_cases import WebNode

NiftiImage: Any = nib.Nifti1Image  # only half of nibabel is typed
NOTES = ({"code": "INPUT_MISSING", "sentence": "there is no t2"},)
FAILURE = Failure(
    code="BRAIN_NOT_FOUND", sentence="3 mL look like brain", advice="Check.", disposition="reject"
)


def packed(values: NDArray[Any] | None = None, affine: NDArray[np.float64] | None = None) -> bytes:
    """Return a small file of four channels, or one of the values given."""
    if values is None:
        values = np.arange(5 * 6 * 7 * 4, dtype=np.int16).reshape(5, 6, 7, 4)
    image = NiftiImage(values, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine)
    return gzip.compress(image.to_bytes(), 1, mtime=0)


def form(content: bytes, name: str = "DOE^JANE.nii.gz") -> dict[str, Any]:
    """Return the arguments of httpx for an upload."""
    return {"files": {"file": (name, content)}}


def multipart_body(content: bytes) -> tuple[bytes, Mapping[str, str]]:
    """Return a whole body and the headers that go with it."""
    head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
    body = head + content + b"\r\n--xyz--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=xyz"}


class InstantInfer:
    """Takes what waits and answers with the input itself, or fails it."""

    def __init__(self, node: WebNode) -> None:
        self.queue = PredictionQueue(node.ledger.engine)
        self._spool = node.spool
        node.beat("infer")

    def take(self) -> PredictionRow | None:
        """Take the first that waits."""
        return self.queue.take("node-1/infer")

    def answer(self, row: PredictionRow) -> bool:
        """Finish a prediction."""
        folder = self._spool.prediction_folder(row.prediction_id)
        (source,) = folder.glob("input.nii*")
        shutil.copy(source, folder / "labels.nii.gz")
        return self.queue.finish(row, model_id="m@1", notes=NOTES)

    def look(self) -> None:
        """Answer what waits."""
        while row := self.take():
            self.answer(row)

    def refuse(self) -> None:
        """Fail what waits."""
        while row := self.take():
            self.queue.fail(row, FAILURE)


def files(folder: Path) -> list[str]:
    """Return what lies below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def head(affine: NDArray[np.float64] | None = None, shape: Shape = (56, 64, 48)) -> Any:  # noqa: ANN401
    """Return a synthetic study of a skull-stripped head as one image of four channels.

    Parameters
    ----------
    affine : (4, 4) ndarray of float64, optional
        From (column, row, slice) to RAS mm relative to the middle of the head; by default 3 mm RAS.
    shape : tuple of int
        Columns, rows, slices.
    """
    study = phantom.make_study(seed=0, size="small")
    if affine is None:
        affine = np.diag([3.0, 3.0, 3.0, 1.0])
    placed = affine.copy()
    placed[:3, 3] = _centre_ras_mm(study) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.moveaxis(np.indices(shape, np.float64), 0, -1)
    lps = (index @ placed[:3, :3].T + placed[:3, 3]) * [-1.0, -1.0, 1.0]
    channels = [_sampled(study.volumes[role], lps) for role in ROLES]
    image = NiftiImage(np.stack(channels, -1), placed)
    image.set_qform(placed, code=1)
    image.set_sform(placed, code=1)
    image.header.set_xyzt_units("mm")
    return image


def _centre_ras_mm(study: PhantomStudy) -> NDArray[np.float64]:
    volume = study.volumes["t1gd"]
    inside = np.argwhere(volume.intensities > 0).astype(np.float64)
    return volume.grid.lps_mm((inside.min(0) + inside.max(0)) / 2) * [-1.0, -1.0, 1.0]


def _sampled(volume: Volume, lps_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a volume at other places, by a formula of its own."""
    matrix = np.linalg.inv(volume.grid.index_to_lps_mm)
    index = lps_mm @ matrix[:3, :3].T + matrix[:3, 3]
    values = map_coordinates(
        volume.intensities, np.moveaxis(index, -1, 0), order=1, mode="constant"
    )
    return np.asarray(values, np.float32)
