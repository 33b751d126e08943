"""Series that are evenly spaced and readable, and still no image of a whole head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.phantoms import copied, edited


def slab(paths: Sequence[Path], folder: Path, extent_mm: float = 60.0) -> list[Path]:
    """Keep the slices in the middle that cover less than a head."""
    first, second = (dcmread(path, stop_before_pixels=True) for path in paths[:2])
    step_mm = float(
        np.linalg.norm(np.subtract(second.ImagePositionPatient, first.ImagePositionPatient))
    )
    count = int(extent_mm / step_mm)
    start = (len(paths) - count) // 2
    return copied(paths[start : start + count], folder)


def scaled(paths: Sequence[Path], folder: Path, factor: float) -> list[Path]:
    """Multiply every length, as a header in another unit would."""

    def edit(_: int, ds: Dataset) -> None:
        ds.PixelSpacing = [factor * float(part) for part in ds.PixelSpacing]
        ds.ImagePositionPatient = [
            round(factor * float(part), 6) for part in ds.ImagePositionPatient
        ]

    return edited(paths, folder, edit)


def zoomed(paths: Sequence[Path], folder: Path, factor: float) -> list[Path]:
    """Multiply the pixel spacing alone."""

    def edit(_: int, ds: Dataset) -> None:
        ds.PixelSpacing = [factor * float(part) for part in ds.PixelSpacing]

    return edited(paths, folder, edit)


def blank_slices(paths: Sequence[Path], folder: Path, indices: Sequence[int]) -> list[Path]:
    """Fill slices with zeros, as a transfer that lost their pixels does."""

    def edit(at: int, ds: Dataset) -> None:
        if at in indices:
            ds.PixelData = bytes(len(ds.PixelData))

    return edited(paths, folder, edit)


def mostly_empty(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Keep a column of each slice, and blank all else."""

    def edit(_: int, ds: Dataset) -> None:
        pixels = np.zeros((ds.Rows, ds.Columns), dtype="<u2")
        pixels[:, ds.Columns // 2] = 100 + np.arange(ds.Rows)
        ds.PixelData = pixels.tobytes()

    return edited(paths, folder, edit)


def not_finite(paths: Sequence[Path], folder: Path, value: float = np.nan) -> list[Path]:
    """Store floating-point pixels of which one is no number."""

    def edit(at: int, ds: Dataset) -> None:
        pixels = np.frombuffer(ds.PixelData, dtype="<u2").astype("<f4")
        pixels[5] = value if at == 3 else pixels[5]
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(ds, keyword)
        ds.BitsAllocated, ds.FloatPixelData = 32, pixels.tobytes()

    return edited(paths, folder, edit)


def truncated_pixels(paths: Sequence[Path], folder: Path, index: int = 3) -> list[Path]:
    """Cut a slice's file off within its pixels."""
    copies = copied(paths, folder)
    copies[index].write_bytes(copies[index].read_bytes()[:-1000])
    return copies
