"""Acquisitions of one series are told apart, never mixed, and never made up to hide a gap."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from converters import series
from converters.errors import InputRejectedError, PartUnknownError
from converters.series import Part
from tests.phantoms import WrittenStudy

COUNT = 12


@pytest.fixture(scope="module")
def pristine(small_study: WrittenStudy) -> tuple[Dataset, ...]:
    """Return the headers of an oblique stack, ascending."""
    return series.read_headers(small_study.files.paths["t1"][:COUNT])


@pytest.fixture
def headers(pristine: tuple[Dataset, ...]) -> list[Dataset]:
    return copies(pristine)


def copies(headers: Sequence[Dataset], **values: object) -> list[Dataset]:
    """Return further instances at the same positions that differ in something."""
    copied = [copy.deepcopy(header) for header in headers]
    for header in copied:
        for keyword, value in values.items():
            setattr(header, keyword, value)
    return copied


def moved(headers: Sequence[Dataset], steps: float) -> list[Dataset]:
    """Return a stack further along the normal, by a number of slice distances."""
    first, second = (
        np.array(one.ImagePositionPatient, dtype=np.float64) for one in (headers[0], headers[1])
    )
    copied = copies(headers)
    for header in copied:
        position = np.array(header.ImagePositionPatient, dtype=np.float64)
        header.ImagePositionPatient = list(np.round(position + steps * (second - first), 6))
    return copied


def turned(headers: Sequence[Dataset]) -> list[Dataset]:
    """Return a stack in another plane: the axes of the patient change places."""
    copied = copies(headers)
    for header in copied:
        cosines = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        header.ImageOrientationPatient = list(np.roll(cosines, 1, axis=1).ravel())
        header.ImagePositionPatient = list(np.roll(header.ImagePositionPatient, 1))
    return copied


def numbered(headers: Sequence[Dataset], keyword: str, values: Sequence[object]) -> list[Dataset]:
    """Return copies that carry values of their own."""
    copied = copies(headers)
    for header, value in zip(copied, values, strict=True):
        setattr(header, keyword, value)
    return copied


def files_of(headers: Sequence[Dataset]) -> list[Path]:
    return [Path(f"{index}.dcm") for index in range(len(headers))]


def outcome(part: Part) -> str:
    """Return the code of a part's refusal, 'a stack' where there is none."""
    try:
        part.stack(limits=None)
    except InputRejectedError as error:
        return error.code
    return "a stack"


def outcomes(headers: Sequence[Dataset]) -> dict[str, tuple[int, str]]:
    """Return the size and the outcome of every part by its name."""
    found = series.parts(headers, files_of(headers))
    assert len({one.name for one in found}) == len(found)
    return {one.name: (len(one.headers), outcome(one)) for one in found}


def whole(*names: str, count: int = COUNT) -> dict[str, tuple[int, str]]:
    return dict.fromkeys(names, (count, "a stack"))


def test_a_series_that_is_one_stack_is_one_part_without_a_name(headers: list[Dataset]) -> None:
    for header, number in zip(headers, range(COUNT), strict=True):
        header.AcquisitionNumber, header.EchoTime = number, 10 + number % 2
    assert outcomes(headers) == whole("")


@pytest.mark.parametrize(
    ("keyword", "values", "names"),
    [
        ("EchoTime", ("92", "11.5"), ("EchoTime=11.5", "EchoTime=92")),
        ("EchoNumbers", (2, 1), ("EchoNumbers=1", "EchoNumbers=2")),
        ("InversionTime", (2500, 900), ("InversionTime=900", "InversionTime=2500")),
        ("DiffusionBValue", (1000.0, 0.0), ("DiffusionBValue=0", "DiffusionBValue=1000")),
        ("FlipAngle", (20, 5), ("FlipAngle=5", "FlipAngle=20")),
        ("RepetitionTime", (500, 400), ("RepetitionTime=400", "RepetitionTime=500")),
        ("TriggerTime", ("10", "310.5"), ("TriggerTime=10", "TriggerTime=310.5")),
        ("AcquisitionNumber", (1, 2), ("AcquisitionNumber=1", "AcquisitionNumber=2")),
        ("StackID", ("B", "A"), ("StackID=1", "StackID=2")),
        ("FrameOfReferenceUID", ("2.25.2", "2.25.1"), None),
        ("Columns", (40, 44), ("Rows=1", "Rows=2")),
        ("PixelSpacing", ([1.5, 1.5], [1.0, 1.0]), ("PixelSpacing=1", "PixelSpacing=2")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), None),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE"), None),
        ("ContrastBolusAgent", ("", "Some^Patient"), None),
        (
            "TemporalPositionIdentifier",
            (1, 2),
            ("TemporalPositionIdentifier=1", "TemporalPositionIdentifier=2"),
        ),
    ],
)
def test_two_acquisitions_over_one_another_are_told_apart_by_what_differs(
    keyword: str,
    values: tuple[object, object],
    names: tuple[str, str] | None,
    headers: list[Dataset],
) -> None:
    both = [*copies(headers, **{keyword: values[0]}), *copies(headers, **{keyword: values[1]})]
    expected = names or (f"{keyword}=1", f"{keyword}=2")
    if keyword == "ContrastBolusAgent":
        expected = ("ContrastBolusAgent=1", "ContrastBolusAgent=none")
    assert outcomes(both) == whole(*expected)


def test_an_attribute_that_some_instances_lack_tells_them_apart(headers: list[Dataset]) -> None:
    both = [*copies(headers), *copies(headers, InversionTime=900)]
    assert outcomes(both) == whole("InversionTime=none", "InversionTime=900")


def test_private_b_values_of_the_vendors_count(headers: list[Dataset]) -> None:
    many = []
    for value in ("0", "1000"):
        for header in copies(headers):
            header.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(
                0x0C, "IS", value
            )
            many.append(header)
    assert outcomes(many) == whole("DiffusionBValue=0", "DiffusionBValue=1000")


def test_every_time_point_of_a_dynamic_series_is_a_part(headers: list[Dataset]) -> None:
    many = [one for at in range(5) for one in copies(headers, TemporalPositionIdentifier=at)]
    assert outcomes(many) == whole(*(f"TemporalPositionIdentifier={at}" for at in range(5)))


def test_echoes_of_several_kinds_take_two_attributes(headers: list[Dataset]) -> None:
    many = [
        one
        for kind in ("M", "P")
        for echo in (5, 10)
        for one in copies(headers, EchoTime=echo, ImageType=["ORIGINAL", "PRIMARY", kind])
    ]
    assert outcomes(many) == whole(
        *(f"ImageType={kind} EchoTime={echo}" for kind in (1, 2) for echo in (5, 10))
    )


def test_names_that_would_be_too_long_become_ordinals(headers: list[Dataset]) -> None:
    many = [
        copy
        for time in (123456, 234567)
        for inversion in (1234.56, 2345.67)
        for echo in (11.25, 92.75)
        for copy in copies(
            headers, TemporalPositionIdentifier=time, InversionTime=inversion, EchoTime=echo
        )
    ]
    assert outcomes(many) == whole(*(f"Acquisition={number}" for number in range(1, 9)))


def test_planes_are_told_apart_before_anything_else(headers: list[Dataset]) -> None:
    both = [*headers, *copies(turned(headers), EchoTime=77)]
    assert outcomes(both) == whole("ImageOrientationPatient=1", "ImageOrientationPatient=2")


def test_stacks_at_other_angles_in_one_plane_are_told_apart(headers: list[Dataset]) -> None:
    tilted = copies(headers)
    turn = np.radians(4.0)
    matrix = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    for header in tilted:
        cosines = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        position = np.array(header.ImagePositionPatient, dtype=np.float64)
        header.ImageOrientationPatient = list(np.round((cosines @ matrix.T).ravel(), 9))
        header.ImagePositionPatient = list(np.round(matrix @ position, 6))
    found = outcomes([*headers, *tilted])
    assert found == whole("ImageOrientationPatient=1", "ImageOrientationPatient=2")


def test_directions_that_differ_in_rounding_are_one(headers: list[Dataset]) -> None:
    jittered = copies(headers)
    for at, header in enumerate(jittered):
        cosines = np.array(header.ImageOrientationPatient, dtype=np.float64)
        header.ImageOrientationPatient = list(np.round(cosines, 4 + at % 3))
    both = [*copies(jittered, EchoTime=11), *copies(jittered, EchoTime=92)]
    assert outcomes(both) == whole("EchoTime=11", "EchoTime=92")


def test_a_localizer_is_a_part_for_each_plane_with_too_few_slices(headers: list[Dataset]) -> None:
    planes = [*headers[:2], *turned(headers[:2]), *turned(turned(headers[:2]))]
    assert outcomes(planes) == {
        f"ImageOrientationPatient={number}": (2, "GEOM_TOO_FEW_SLICES") for number in (1, 2, 3)
    }


def test_stacks_at_other_places_are_told_apart_by_their_number(headers: list[Dataset]) -> None:
    far = copies(moved(headers, 40), StackID="2")
    assert outcomes([*copies(headers, StackID="1"), *far]) == whole("StackID=1", "StackID=2")


def test_a_missing_slice_stays_one_even_where_an_attribute_would_hide_it(
    headers: list[Dataset],
) -> None:
    passes = numbered(headers, "AcquisitionNumber", [1 + at % 2 for at in range(COUNT)])
    del passes[1]  # each of the passes alone is an even stack of every other slice
    assert outcomes(passes) == {"": (COUNT - 1, "GEOM_MISSING_SLICE")}


@pytest.mark.parametrize("keyword", ["EchoTime", "StackID", "TemporalPositionIdentifier"])
def test_every_other_slice_is_no_acquisition_whatever_it_is_called(
    keyword: str, headers: list[Dataset]
) -> None:
    passes = numbered(headers, keyword, [str(1 + at % 2) for at in range(COUNT)])
    assert outcomes([*passes[:1], *passes[2:]]) == {"": (COUNT - 1, "GEOM_MISSING_SLICE")}


def test_packages_with_a_slice_missing_between_them_stay_one_part(headers: list[Dataset]) -> None:
    packages = numbered(headers, "AcquisitionNumber", [1] * 6 + [2] * 6)
    del packages[5]
    assert outcomes(packages) == {"": (COUNT - 1, "GEOM_MISSING_SLICE")}


def test_a_missing_slice_of_one_echo_is_that_echos_fault(headers: list[Dataset]) -> None:
    second = copies(headers, EchoTime=92)
    del second[4]
    assert outcomes([*copies(headers, EchoTime=11), *second]) == {
        "EchoTime=11": (COUNT, "a stack"),
        "EchoTime=92": (COUNT - 1, "GEOM_MISSING_SLICE"),
    }


def test_echoes_of_which_none_is_whole_are_refused_together(headers: list[Dataset]) -> None:
    echoes = [*copies(headers, EchoTime=11), *copies(headers, EchoTime=92)]
    assert outcomes([*echoes[:4], *echoes[5:16], *echoes[17:]]) == {
        "": (2 * COUNT - 2, "GEOM_DUPLICATE_SLICE")
    }


def test_a_lone_odd_slice_is_not_split_off(headers: list[Dataset]) -> None:
    lone = copies(headers[-1:], EchoTime=92)
    assert outcomes([*headers, *lone]) == {"": (COUNT + 1, "GEOM_DUPLICATE_SLICE")}


def test_the_same_slice_twice_is_refused(headers: list[Dataset]) -> None:
    assert outcomes([*headers, *copies(headers)]) == {"": (2 * COUNT, "GEOM_DUPLICATE_SLICE")}


def test_half_of_the_same_acquisition_again_does_not_hide_behind_a_number(
    headers: list[Dataset],
) -> None:
    again = [*copies(headers, AcquisitionNumber=2), *copies(headers[:3], AcquisitionNumber=2)]
    many = [*copies(headers, AcquisitionNumber=1), *again]
    assert outcomes(many) == {"": (2 * COUNT + 3, "GEOM_DUPLICATE_SLICE")}


def test_a_repeat_between_the_slices_of_the_first_is_refused(headers: list[Dataset]) -> None:
    many = [*copies(headers, EchoTime=11), *copies(moved(headers, 0.4), EchoTime=12)]
    assert outcomes(many) == {"": (2 * COUNT, "GEOM_UNEVEN_GAP")}


def test_acquisitions_that_nothing_tells_apart_are_refused(headers: list[Dataset]) -> None:
    names = numbered([*headers, *headers], "TriggerTime", range(2 * COUNT))
    assert outcomes(names) == {"": (2 * COUNT, "GEOM_DUPLICATE_SLICE")}


def test_a_rescale_or_a_window_of_its_own_splits_nothing(headers: list[Dataset]) -> None:
    for at, header in enumerate(headers):
        header.RescaleSlope, header.WindowCenter = 1 + at / 8, 100 + at
    assert outcomes(headers) == whole("")


def test_text_of_a_header_never_becomes_a_name(headers: list[Dataset]) -> None:
    both = [*copies(headers, StackID="Doe^John"), *copies(headers, StackID="1970")]
    assert outcomes(both) == whole("StackID=1", "StackID=2")


def test_a_named_part_is_stacked(headers: list[Dataset]) -> None:
    both = [*copies(headers, EchoTime=11), *copies(headers, EchoTime=92)]
    stack = series.stack_headers(both, files_of(both), "EchoTime=92", limits=None)
    assert [float(header.EchoTime) for header in stack.headers] == [92.0] * COUNT
    assert stack.files == tuple(files_of(both)[COUNT:])


def test_several_parts_without_a_name_are_refused_for_what_they_are(headers: list[Dataset]) -> None:
    both = [*copies(headers, EchoTime=11), *copies(headers, EchoTime=92)]
    with pytest.raises(InputRejectedError) as caught:
        series.stack_headers(both, files_of(both))
    assert caught.value.code == "GEOM_DUPLICATE_SLICE"


def test_a_part_that_is_not_there_is_refused(headers: list[Dataset]) -> None:
    with pytest.raises(PartUnknownError) as caught:
        series.stack_headers(headers, files_of(headers), "EchoTime=92")
    assert caught.value.evidence == {"count": 1}


def test_a_part_made_by_hand_is_read_when_it_is_stacked(headers: list[Dataset]) -> None:
    part = Part(
        name="", headers=tuple(headers), files=tuple(files_of(headers)), frames=(0,) * COUNT
    )
    assert part.stack(limits=None).grid.shape[0] == COUNT


Mixture = Callable[[Sequence[Dataset]], list[Dataset]]
MIXTURES: list[Mixture] = [
    lambda headers: [*copies(headers, EchoTime=11), *copies(headers, EchoTime=92)],
    lambda headers: [*headers, *turned(headers), *copies(headers, TriggerTime=4)],
    lambda headers: [
        one
        for time in (1, 2, 3)
        for kind in ("W", "F")
        for one in copies(
            headers[: COUNT - time],
            TemporalPositionIdentifier=time,
            ImageType=["DERIVED", "PRIMARY", kind],
        )
    ],
    lambda headers: [*headers, *copies(headers)],
    lambda headers: [*headers[:4], *headers[5:]],
]


@given(mixture=st.sampled_from(MIXTURES), seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_order_of_arrival_changes_nothing(
    pristine: tuple[Dataset, ...], mixture: Mixture, seed: int
) -> None:
    headers = mixture(copies(pristine))
    for number, header in enumerate(headers):
        header.SOPInstanceUID = f"2.25.{number}"
    shuffled = random.Random(seed).sample(headers, len(headers))
    assert members(shuffled) == members(headers)


def members(headers: Sequence[Dataset]) -> dict[str, set[str]]:
    return {
        one.name: {str(header.SOPInstanceUID) for header in one.headers}
        for one in series.parts(headers, files_of(headers))
    }
