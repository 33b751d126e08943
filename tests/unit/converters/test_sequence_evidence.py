"""What headers say: agents, times, names, pictures; classic and enhanced, well or badly formed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from converters import series
from converters.sequence_evidence import evidence_of
from converters.sequences import Physics, SequenceEvidence, classify
from tests.phantoms import WrittenStudy


def _header(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def test_the_phantoms_series_are_known_by_their_headers(small_study: WrittenStudy) -> None:
    for role, files in small_study.files.paths.items():
        (header,) = series.read_headers(files[:1])
        found = classify(evidence_of(header))
        assert found.role == role
        assert found.score >= 0.85


def test_an_empty_header_gives_no_evidence() -> None:
    evidence = evidence_of(Dataset())
    assert evidence == SequenceEvidence(modality="")
    assert classify(evidence).sequence == "other: not MR"


@pytest.mark.parametrize(
    "agent",
    ["", "NONE", "no", "ohne", "No contrast", "SIN CONTRASTE", "sem", "geen", "n/a", "nativ", "-"],
)
def test_an_agent_that_says_none_is_none(agent: str) -> None:
    assert not evidence_of(_header(ContrastBolusAgent=agent)).has_agent


@pytest.mark.parametrize(
    "elements",
    [
        {"ContrastBolusAgent": "Gadobutrol"},
        {"ContrastBolusVolume": "7.5"},
        {"ContrastBolusAgentSequence": [Dataset()]},
        {"ContrastBolusIngredient": "GADOLINIUM"},
        {"ContrastBolusTotalDose": "10"},
        {"ContrastBolusRoute": "IV"},
        {"ContrastBolusRoute": "INTRAVENOUS"},
        {"ContrastBolusAgent": "Nonionic"},
    ],
)
def test_any_element_can_name_an_agent(elements: dict[str, object]) -> None:
    assert evidence_of(_header(**elements)).has_agent


def test_numbers_that_are_none_are_left_out() -> None:
    evidence = evidence_of(_header(RepetitionTime="0", EchoTime=None, FlipAngle=["90", "80"]))
    assert evidence.physics == Physics(flip_angle_deg=90.0)


@pytest.mark.parametrize(
    ("elements", "is_picture"),
    [
        ({"PhotometricInterpretation": "RGB"}, True),
        ({"PhotometricInterpretation": "MONOCHROME2"}, False),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, True),
        ({"SOPClassUID": MRImageStorage}, False),
    ],
)
def test_colour_and_captures_are_pictures(elements: dict[str, object], is_picture: bool) -> None:  # noqa: FBT001 - a case
    evidence = evidence_of(_header(Modality="MR", SeriesDescription="t1", **elements))
    assert evidence.is_picture is is_picture
    assert (classify(evidence).sequence == "other: screenshot") is is_picture


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"AcquisitionDateTime": "20250115101500.5"}, {"AcquisitionDateTime": "20250115101501"}),
        (
            {"AcquisitionDate": "20250115", "AcquisitionTime": "235959"},
            {"AcquisitionDate": "20250116", "AcquisitionTime": "000001.25"},
        ),
        ({"AcquisitionTime": "101500"}, {"AcquisitionTime": "101501"}),
    ],
)
def test_acquisitions_are_ordered_by_time(
    first: dict[str, object], second: dict[str, object]
) -> None:
    early, late = (evidence_of(_header(**one)).acquired_at_s for one in (first, second))
    assert early is not None
    assert late is not None
    assert early < late < early + 10.0


def test_a_day_that_does_not_exist_leaves_the_time_of_day() -> None:
    ds = _header(AcquisitionTime="000010")
    ds.add_new("AcquisitionDate", "LO", "20250231")
    assert evidence_of(ds).acquired_at_s == 10.0


def test_names_in_other_character_sets_are_read() -> None:
    ds = _header(SpecificCharacterSet="ISO_IR 192", SeriesDescription="\u00dcbersicht")
    assert evidence_of(ds).description == "\u00dcbersicht"


def test_another_route_than_a_vein_names_no_agent() -> None:
    assert not evidence_of(_header(ContrastBolusRoute="ORAL")).has_agent


@pytest.mark.parametrize(
    ("administered", "phase", "has_agent"),
    [("NO", "", False), ("YES", "", True), ("YES", "PRE_CONTRAST", False), ("", "", True)],
)
def test_enhanced_images_say_whether_the_agent_was_there(
    administered: str,
    phase: str,
    has_agent: bool,  # noqa: FBT001 - a case
) -> None:
    ds = _header(
        ContrastBolusAgentSequence=[Dataset()],
        ContrastBolusAgentAdministered=administered,
        ContrastBolusAgentPhase=phase,
    )
    assert evidence_of(ds).has_agent is has_agent


def test_enhanced_keywords_mean_what_the_classic_ones_do() -> None:
    enhanced = _header(
        EffectiveEchoTime=120.0,
        RepetitionTime="9000",
        InversionTimes=[2500.0],
        EchoPulseSequence="SPIN",
        InversionRecovery="YES",
        EchoPlanarPulseSequence="NO",
        AcquisitionContrast="FLUID_ATTENUATED",
        RFEchoTrainLength=20,
        ComplexImageComponent="MAGNITUDE",
        PulseSequenceName="TIR",
        TimeOfFlightContrast="FALSE",
    )
    found = evidence_of(enhanced)
    assert found.physics == Physics(
        repetition_time_ms=9000.0,
        echo_time_ms=120.0,
        inversion_time_ms=2500.0,
        scanning=("SE", "IR"),
        echo_train_length=20.0,
    )
    assert (found.weighting, found.image_type) == ("FLUID_ATTENUATED", ("MAGNITUDE",))
    assert found.sequence_name == "TIR"


def test_free_precession_and_vessels_are_known_from_enhanced_keywords() -> None:
    found = evidence_of(
        _header(
            EchoPulseSequence="GRADIENT",
            SteadyStatePulseSequence="FREE_PRECESSION",
            PhaseContrast="YES",
        )
    ).physics
    assert (found.scanning, found.variant, found.has_angio_flag) == (("GR",), ("SS",), True)


def test_doubles_are_read_as_they_stand_in_the_file() -> None:
    ds = Dataset()
    raw = RawDataElement(
        Tag("DiffusionBValue"),
        "FD",
        8,
        b"\0\0\0\0\0@\x8f@",
        0,
        is_implicit_VR=False,
        is_little_endian=True,
    )
    ds[raw.tag] = raw
    assert evidence_of(ds).physics.b_value == 1000.0


@pytest.mark.parametrize(
    ("creator", "owner", "tag"),
    [
        ((0x0019, 0x0010), "GEMS_ACQU_01", (0x0019, 0x109C)),
        ((0x2001, 0x0010), "Philips Imaging DD 001", (0x2001, 0x1020)),
    ],
)
def test_private_names_of_the_pulse_sequence_are_read_from_their_owner(
    creator: tuple[int, int], owner: str, tag: tuple[int, int]
) -> None:
    ds = Dataset()
    ds.add_new(tag, "LO", "3dtof")
    assert evidence_of(ds).sequence_name == ""
    ds.add_new(creator, "LO", owner)
    assert evidence_of(ds).sequence_name == "3dtof"


def test_the_agents_time_is_on_the_scale_of_the_acquisition() -> None:
    found = evidence_of(
        _header(
            AcquisitionDateTime="20250115101500",
            ContrastBolusStartTime="101000",
        )
    )
    assert found.acquired_at_s is not None
    assert found.agent_at_s == found.acquired_at_s - 300.0


def test_the_step_of_slices_is_the_larger_of_thickness_and_spacing() -> None:
    both = _header(SliceThickness="5", SpacingBetweenSlices="1")
    assert evidence_of(both).slice_step_mm == 5.0
    assert evidence_of(Dataset()).slice_step_mm is None


_KEYWORDS = (
    "Modality", "SeriesDescription", "ProtocolName", "SequenceName", "ImageType", "RepetitionTime",
    "EchoTime", "InversionTime", "FlipAngle", "ScanningSequence", "SequenceVariant",
    "MRAcquisitionType", "ContrastBolusAgent", "ContrastBolusStartTime", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "DiffusionBValue", "BodyPartExamined",
    "NumberOfTemporalPositions", "PixelBandwidth", "PhotometricInterpretation", "SOPClassUID",
    "SpecificCharacterSet", "EffectiveEchoTime", "SliceThickness", "EchoTrainLength",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(_KEYWORDS), st.binary(max_size=24)), st.booleans())
def test_no_header_is_too_hostile(values: dict[str, bytes], is_little: bool) -> None:  # noqa: FBT001 - a case
    ds = Dataset()
    for keyword, value in values.items():
        tag = Tag(keyword)
        ds[tag] = RawDataElement(
            tag, None, len(value), value, 0, is_implicit_VR=is_little, is_little_endian=is_little
        )
    found = classify(evidence_of(ds))
    assert 0.0 <= found.score <= 1.0
