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
    return gzip.compress(image.to_bytes(), 1)


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
