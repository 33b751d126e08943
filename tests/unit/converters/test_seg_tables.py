"""highdicom's look into its tables, with the answers kept, says what it said before."""

from __future__ import annotations

from highdicom import _standard_utils
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from converters import seg


def test_kept_answers_are_those_of_the_tables() -> None:
    asked: list[str] = []

    def _ask(attribute: str, uid: str, exclude: object = None) -> bool:
        asked.append(f"{attribute} {exclude}")
        return uid == EnhancedMRImageStorage

    remembered = seg._remembering(_ask)
    for _ in range(2):
        assert not remembered("NumberOfFrames", MRImageStorage)
        assert remembered("NumberOfFrames", EnhancedMRImageStorage)
        assert not remembered("PixelData", MRImageStorage, ["IconImageSequence"])
    assert asked.count("NumberOfFrames None") == 2
    assert asked.count("PixelData ['IconImageSequence']") == 2


def test_highdicom_asks_through_it() -> None:
    asked = _standard_utils.is_attribute_in_iod
    assert asked.__module__ == seg.__name__
    assert not asked("NumberOfFrames", MRImageStorage)
    assert asked("NumberOfFrames", EnhancedMRImageStorage)
