"""A small fixed set of what ``make fuzz`` tries by the thousand; see docs/reliability.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.hunt import DOORS, hunt
from tests.fuzz.target import CrashError, Folder, HangError, Verdict

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore"),  # of the libraries, about the oddities in the inputs
]

_SEED = 20261130
_INPUTS = {
    "dicom-pdus": 40,
    "dicom-data-sets": 120,
    "dicom-series": 100,
    "http": 40,
    "upload": 30,
    "stow": 40,
    "nifti": 100,
    "manifest": 30,
    "safetensors": 40,
    "checkpoint": 3,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_refuses_or_accepts_whatever_it_is_given(door: str, tmp_path: Path) -> None:
    tally = hunt(door, inputs=_INPUTS[door], seed=_SEED, keep=tmp_path)
    assert tally.findings == []
    assert tally.problems == []
    assert tally.strays == []
    assert tally.leaks == []
    assert tally.refused + tally.accepted == tally.inputs == _INPUTS[door]
    assert tally.refused


class _Failing:
    """A door that crashes, hangs, keeps a handle and writes where it must not."""

    name = "nifti"  # stands in for it
    pools = 0

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._kept: list[object] = []

    def make(self, rng: object) -> bytes:
        del rng
        return b"x"

    def give(self, content: bytes) -> Verdict:
        del content
        self._kept.append((self._folder.work / "kept").open("wb"))
        (self._folder.root.parent / "stray").write_bytes(b"")
        (self._folder.root / "beside").write_bytes(b"")
        if len(self._kept) == 3:
            raise CrashError("as asked")
        if len(self._kept) == 4:
            raise HangError("as asked")
        return Verdict.ACCEPTED

    def problems(self) -> list[str]:
        return ["it is shut"]

    def close(self) -> None:
        for one in self._kept:
            one.close()  # type: ignore[attr-defined]


def test_the_hunt_finds_what_it_is_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.files.Nifti", _Failing)
    tally = hunt("nifti", inputs=40, seed=1, keep=tmp_path)
    assert [(one.number, one.kind) for one in tally.findings] == [(2, "crash"), (3, "hang")]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["nifti-1-2.bin", "nifti-1-3.bin"]
    assert tally.problems == ["it is shut"]
    assert {Path(one).name for one in tally.strays} == {"stray", "beside"}
    assert tally.leaks == ["20 handles"]
