"""What every error of the project can do."""

from __future__ import annotations

import pickle

import pytest

from converters.errors import CodedError, MissingSliceError, PixelDecodeError


def test_the_sentence_holds_the_evidence() -> None:
    error = MissingSliceError(slice_index=3, gap_mm=5.0, expected_mm=2.5)
    assert str(error) == "gap before slice 3 is 5.000 mm, expected 2.500 mm"


def test_evidence_that_the_sentence_needs_cannot_be_left_out() -> None:
    with pytest.raises(KeyError):
        MissingSliceError(slice_index=3)


def test_an_error_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(PixelDecodeError(slice_index=1, reason="colour")))
    assert isinstance(error, PixelDecodeError)
    assert error.evidence == {"slice_index": 1, "reason": "colour"}


def test_a_placed_error_keeps_its_kind_and_evidence() -> None:
    error = PixelDecodeError(slice_index=1, reason="colour").placed(role="t1")
    assert isinstance(error, PixelDecodeError)
    assert error.evidence == {"slice_index": 1, "reason": "colour", "role": "t1"}


def test_the_base_says_nothing() -> None:
    assert str(CodedError()) == ""


def test_an_error_placed_at_a_series_names_its_role_first() -> None:
    error = MissingSliceError(slice_index=3, gap_mm=5.0, expected_mm=2.5)
    assert str(error) == "gap before slice 3 is 5.000 mm, expected 2.500 mm"
    placed = error.placed(role="t2")
    assert str(placed) == "t2: gap before slice 3 is 5.000 mm, expected 2.500 mm"
    assert str(pickle.loads(pickle.dumps(placed))) == str(placed)
