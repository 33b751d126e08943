"""An image as the Decathlon has them, and its labels by the reference project's own calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import NormalizeIntensityd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from monai.transforms.utility.dictionary import EnsureChannelFirstd
from numpy.typing import NDArray

from converters import nifti
from inference import model
from inference.manifest import Manifest
from inference.predict import predict

Labels = NDArray[np.uint8]


def write_image(folder: Path) -> Path:
    """Write a 4-D image: LPS, 1 mm, 0 outside a ball of tissue; return its file."""
    rng = np.random.default_rng(5)
    shape = (26, 31, 29)
    away = np.indices(shape) - np.array([12.0, 16.0, 14.0])[:, None, None, None]
    inside = np.sqrt((away**2).sum(axis=0)) < 11.5
    voxels = 400.0 + 150.0 * rng.standard_normal((*shape, 4), dtype=np.float32)
    voxels[~inside] = 0.0
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [20.0, 31.0, -17.0]
    image = nib.Nifti1Image(voxels.astype(np.float32), affine)  # type: ignore[no-untyped-call]
    file = folder / "image.nii.gz"
    nib.save(image, file)
    return file


def plain_labels(image: Path, network: torch.nn.Module, window: tuple[int, int, int]) -> Labels:
    """Return labels (x, y, z) growing to R, A and S, by MONAI's transforms and inferer."""
    read = Compose(
        [
            LoadImaged(keys="image", image_only=True),
            EnsureChannelFirstd(keys="image"),
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
            NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        ]
    )
    prepared = read({"image": str(image)})["image"]
    with torch.inference_mode():
        scores = sliding_window_inference(
            prepared[None].as_tensor(), window, 4, network, overlap=0.5, mode="constant"
        )
    if not isinstance(scores, torch.Tensor):
        raise TypeError
    return np.asarray(scores.argmax(dim=1)[0].numpy(), dtype=np.uint8)


def node_labels(image: Path, declared: Manifest) -> Labels:
    """Return the labels that the node gives, in the order of `plain_labels`."""
    # The image is stripped already, and no head whose brain could be found.
    space = declared.space.model_copy(update={"skull": "any"})
    loaded = model.load(declared, device="cpu", threads=1)
    given = replace(loaded, manifest=declared.model_copy(update={"space": space}))
    volumes = nifti.read_channels(image, declared.roles)
    found = predict(volumes, given, reference_role="t1gd").label_map.labels
    return found.transpose(2, 1, 0)[::-1, ::-1]
