"""Write a synthetic brain study with a tumour to a folder: four MR series, and the truth."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from converters import phantom


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="created when absent")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another patient")
    parser.add_argument("--size", choices=("clinical", "small"), default="clinical")
    parser.add_argument("--healthy", action="store_true", help="no tumour")
    parser.add_argument("--skull", action="store_true", help="keep skull and scalp")
    parser.add_argument("--odd-matrix", action="store_true", help="rows x columns not 8 n")
    return parser.parse_args()


def main() -> None:
    """Write the study and say what it holds."""
    wanted = _arguments()
    study = phantom.make_study(
        wanted.seed,
        size=wanted.size,
        lesions=() if wanted.healthy else None,
        has_skull=wanted.skull,
        has_odd_matrix=wanted.odd_matrix,
    )
    files = phantom.write_study(study, wanted.folder)
    for role, paths in files.paths.items():
        np.save(wanted.folder / f"{role}_truth.npy", study.truth[role])
        grid = study.volumes[role].grid
        counts = np.bincount(study.truth[role].ravel(), minlength=4)[1:]
        ml = [round(float(count) * grid.voxel_volume_mm3 / 1000.0, 1) for count in counts]
        print(f"{role}: {len(paths)} instances, oedema/core/enhancing {ml} mL")
    print(f"Study Instance UID {files.study_instance_uid}")


if __name__ == "__main__":
    main()
