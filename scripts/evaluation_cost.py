"""What a whole study costs: seconds and memory of a process of its own that segments it.

    python -m scripts.evaluation_cost FOLDER --model models/demo-glioma --mask models/brain-mask

Reads ``flair.nii``, ``t1.nii``, ``t1gd.nii`` and ``t2.nii`` in the folder, as the node's infer
process does, registers them, and prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from converters import nifti
from inference import manifest, model
from inference.predict import predict
from scripts.evaluation_runs import registered
from scripts.evaluation_studies import REFERENCE_ROLE, Study

_KIB_PER_GIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds by the clock, CPU seconds of the process, and its peak memory.

    Parameters
    ----------
    study : str
        Which study.
    voxels : str
        Shape of its reference series: columns x rows x slices.
    load_s, read_s, register_s, predict_s : float
        Loading the model, reading the four volumes, registering three of them, predicting.
    cpu_s : float
        CPU seconds of all of it and of starting Python.
    peak_gib : float
        Peak memory of the process.
    load_average : float
        How many processes wanted a processor before it began; near 0 on a quiet machine.
    """

    study: str
    voxels: str
    load_s: float
    read_s: float
    register_s: float
    predict_s: float
    cpu_s: float
    peak_gib: float
    load_average: float

    @property
    def total_s(self) -> float:
        """Seconds of the whole study."""
        return self.load_s + self.read_s + self.register_s + self.predict_s


def measure(study: Study, folder: Path, mask_folder: Path, *, threads: int) -> Cost:
    """Return what a study costs in a process of its own."""
    with tempfile.TemporaryDirectory() as room:
        for role, volume in study.volumes.items():
            nifti.write_volume(volume, Path(room) / f"{role}.nii")
        places = ["--model", str(folder), "--mask", str(mask_folder), "--threads", str(threads)]
        command = [sys.executable, "-m", "scripts.evaluation_cost", room, *places]
        answer = subprocess.run(  # noqa: S603
            [*command, "--name", study.name], check=True, capture_output=True, text=True
        )
    return Cost(**json.loads(answer.stdout))


def main() -> None:
    """Segment the study in a folder once and print what it cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--mask", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="", help="of the study, in the answer")
    print(json.dumps(asdict(_measured(parser.parse_args()))))


def _measured(options: argparse.Namespace) -> Cost:
    load_average = os.getloadavg()[0]
    times = [time.perf_counter()]
    loaded = model.load(
        manifest.load(options.model),
        device="cpu",
        threads=options.threads,
        mask_folder=options.mask,
    )
    times.append(time.perf_counter())
    roles = loaded.manifest.roles
    volumes = {
        role: nifti.read_volume(
            options.folder / f"{role}.nii", role=role, frame_of_reference_uid="2.25.4711"
        )
        for role in roles
    }
    times.append(time.perf_counter())
    volumes = registered(volumes)
    times.append(time.perf_counter())
    predict(list(volumes.values()), loaded, reference_role=REFERENCE_ROLE)
    times.append(time.perf_counter())
    load_s, read_s, register_s, predict_s = (b - a for a, b in itertools.pairwise(times))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(
        study=options.name,
        voxels=" x ".join(str(count) for count in volumes[REFERENCE_ROLE].grid.shape[::-1]),
        load_s=load_s,
        read_s=read_s,
        register_s=register_s,
        predict_s=predict_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_gib=_peak_kib() / _KIB_PER_GIB,
        load_average=load_average,
    )


def _peak_kib() -> int:
    """Return the peak memory of this process; ``ru_maxrss`` would count its parent's as well."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status names no VmHWM")


def processor() -> str:
    """Return the name of this machine's processor, and how many cores it grants."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
