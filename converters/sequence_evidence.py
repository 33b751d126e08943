"""What the header of a series says about its acquisition.

Classic keywords at the top level; those of enhanced MR are read beside them and mean the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SecondaryCaptureImageStorage

from converters.attributes import free_text, is_present, texts
from converters.sequence_values import numbers, word, words

_NO_AGENT: Final = re.compile(
    r"(?:no|none|non|not|nil|nein|kein\w*|ohne|sans|aucun\w*|sin|sem|senza|nessun\w*|geen|zonder"
    r"|without|w ?/? ?o|nativ\w*|pre|unenhanced|unk\w*|n ?/? ?a?|null|nihil|nenhum\w*|false|[-.0])"
    r"(?:\W.*)?",
    re.IGNORECASE,
)
_BY_VEIN: Final = re.compile(r"i\.?\W?v\b|intra\W?ven", re.IGNORECASE)
_LONGEST_NAME: Final = 128
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_TIME: Final = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2}(?:\.[0-9]{1,6})?)")
_DAY_S: Final = 86400.0
_GE_PULSE: Final = (Tag(0x0019, 0x0010), "GEMS_ACQU_01", Tag(0x0019, 0x109C))
_PHILIPS_PULSE: Final = (Tag(0x2001, 0x0010), "Philips Imaging DD 001", Tag(0x2001, 0x1020))
_SCANNING: Final = {  # enhanced MR -> the classic word for it
    ("EchoPulseSequence", "SPIN"): "SE",
    ("EchoPulseSequence", "GRADIENT"): "GR",
    ("InversionRecovery", "YES"): "IR",
    ("EchoPlanarPulseSequence", "YES"): "EP",
}
_ANGIO: Final = ("AngioFlag", "TimeOfFlightContrast", "PhaseContrast")
_YES: Final = frozenset({"Y", "YES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Physics:
    """How a series was acquired; None or empty where the header does not say.

    Parameters
    ----------
    repetition_time_ms, echo_time_ms, inversion_time_ms : float, optional
        The echo time is the effective one of an echo train.
    flip_angle_deg : float, optional
        Of the excitation.
    b_value : float, optional
        Diffusion weighting in s/mm2, above 0.
    scanning : tuple of str
        ``SE``, ``GR``, ``IR``, ``EP``: Scanning Sequence (0018,0020) or what stands for it.
    acquisition_type : str
        ``2D`` or ``3D``.
    has_angio_flag : bool
        The acquisition shows vessels.
    variant : tuple of str
        ``SK``, ``SP``, ``SS``, ``MP`` and so on: Sequence Variant (0018,0021).
    echo_train_length : float, optional
        Echoes per excitation.
    bandwidth_hz : float, optional
        Of one pixel.
    temporal_count : int
        How often the same slices were taken.
    """

    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    b_value: float | None = None
    scanning: tuple[str, ...] = ()
    acquisition_type: str = ""
    has_angio_flag: bool = False
    variant: tuple[str, ...] = ()
    echo_train_length: float | None = None
    bandwidth_hz: float | None = None
    temporal_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceEvidence:
    """What speaks for one sequence or another.

    Parameters
    ----------
    modality : str
        Modality (0008,0060).
    description, protocol_name, sequence_name : str
        Free text of the header, at most 128 characters.
    image_type : tuple of str
        Image Type (0008,0008) and Complex Image Component (0008,9208), upper case.
    physics : Physics
        The acquisition.
    has_agent : bool
        An element names a contrast agent.
    is_picture : bool
        Colour or a secondary capture: made for looking at.
    acquired_at_s : float, optional
        Seconds since an arbitrary day; only orders the series of a study.
    weighting : str
        Acquisition Contrast (0008,9209).
    body_part : str
        Body Part Examined (0018,0015).
    agent_at_s : float, optional
        When the agent was given, on the scale of `acquired_at_s`.
    slice_step_mm : float, optional
        From slice to slice, at the most.
    """

    modality: str = "MR"
    description: str = ""
    protocol_name: str = ""
    sequence_name: str = ""
    image_type: tuple[str, ...] = ()
    physics: Physics = Physics()
    has_agent: bool = False
    is_picture: bool = False
    acquired_at_s: float | None = None
    weighting: str = ""
    body_part: str = ""
    agent_at_s: float | None = None
    slice_step_mm: float | None = None


def evidence_of(ds: Dataset) -> SequenceEvidence:
    """Return what one header of a series says; what is absent or malformed is left out."""
    return SequenceEvidence(
        modality=word(ds, "Modality"),
        description=_name(ds, "SeriesDescription"),
        protocol_name=_name(ds, "ProtocolName"),
        sequence_name=_pulse_name(ds),
        image_type=words(ds, "ImageType") + words(ds, "ComplexImageComponent"),
        physics=_physics(ds),
        has_agent=_has_agent(ds),
        is_picture=_is_picture(ds),
        acquired_at_s=_acquired_at_s(ds),
        weighting=word(ds, "AcquisitionContrast"),
        body_part=word(ds, "BodyPartExamined"),
        agent_at_s=_agent_at_s(ds),
        slice_step_mm=_slice_step_mm(ds),
    )


def _physics(ds: Dataset) -> Physics:
    scanning = words(ds, "ScanningSequence") + tuple(
        classic for (keyword, value), classic in _SCANNING.items() if word(ds, keyword) == value
    )
    is_balanced = word(ds, "SteadyStatePulseSequence") == "FREE_PRECESSION"
    train = _positive(ds, "EchoTrainLength") or _positive(ds, "RFEchoTrainLength")
    return Physics(
        repetition_time_ms=_positive(ds, "RepetitionTime"),
        echo_time_ms=_positive(ds, "EffectiveEchoTime") or _positive(ds, "EchoTime"),
        inversion_time_ms=_positive(ds, "InversionTime") or _positive(ds, "InversionTimes"),
        flip_angle_deg=_positive(ds, "FlipAngle"),
        b_value=_positive(ds, "DiffusionBValue"),
        scanning=scanning,
        acquisition_type=word(ds, "MRAcquisitionType"),
        has_angio_flag=any(word(ds, keyword) in _YES for keyword in _ANGIO),
        variant=words(ds, "SequenceVariant") + (("SS",) if is_balanced else ()),
        echo_train_length=train,
        bandwidth_hz=_positive(ds, "PixelBandwidth"),
        temporal_count=int(_positive(ds, "NumberOfTemporalPositions") or 1),
    )


def _pulse_name(ds: Dataset) -> str:
    """Return the scanner's own name of the pulse sequence, of private elements where need be."""
    public = _name(ds, "SequenceName") or _name(ds, "PulseSequenceName")
    if public:
        return public
    for creator, owner, tag in (_GE_PULSE, _PHILIPS_PULSE):
        if texts(ds, creator) == (owner,):
            return " ".join(texts(ds, tag))[:_LONGEST_NAME]
    return ""


def _has_agent(ds: Dataset) -> bool:
    is_administered = word(ds, "ContrastBolusAgentAdministered")
    if is_administered in {"YES", "NO"}:
        return is_administered == "YES" and word(ds, "ContrastBolusAgentPhase") != "PRE_CONTRAST"
    if is_present(ds, Tag("ContrastBolusAgentSequence")):
        return True
    if any(_positive(ds, one) for one in ("ContrastBolusVolume", "ContrastBolusTotalDose")):
        return True
    named = (_name(ds, "ContrastBolusAgent"), _name(ds, "ContrastBolusIngredient"))
    given = [one.strip() for one in named if one.strip()]
    if given:
        return not any(_NO_AGENT.fullmatch(one) for one in given)
    return _BY_VEIN.match(_name(ds, "ContrastBolusRoute")) is not None


def _is_picture(ds: Dataset) -> bool:
    photometric = word(ds, "PhotometricInterpretation")
    is_capture = SecondaryCaptureImageStorage in texts(ds, Tag("SOPClassUID"))
    return is_capture or bool(photometric and not photometric.startswith("MONOCHROME"))


def _acquired_at_s(ds: Dataset) -> float | None:
    """Return when the acquisition began; its time may stand in one element or in two."""
    for keyword in ("AcquisitionDateTime", "FrameAcquisitionDateTime"):
        moment = _first(ds, keyword)
        if moment:
            return _seconds(moment[:8], moment[8:])
    day = _first(ds, "AcquisitionDate") or _first(ds, "SeriesDate")
    return _seconds(day, _first(ds, "AcquisitionTime") or _first(ds, "SeriesTime"))


def _slice_step_mm(ds: Dataset) -> float | None:
    """Return the larger of thickness and spacing: some writers mean the gap by spacing."""
    both = (_positive(ds, "SpacingBetweenSlices"), _positive(ds, "SliceThickness"))
    return max((one for one in both if one is not None), default=None)


def _agent_at_s(ds: Dataset) -> float | None:
    day = _first(ds, "AcquisitionDateTime")[:8] or _first(ds, "AcquisitionDate")
    return _seconds(day or _first(ds, "SeriesDate"), _first(ds, "ContrastBolusStartTime"))


def _seconds(day: str, time: str) -> float | None:
    at, on = _TIME.match(time), _DATE.fullmatch(day)
    if at is None:
        return None
    seconds = int(at[1]) * 3600.0 + int(at[2]) * 60.0 + float(at[3])
    if on is None:
        return seconds
    try:
        return seconds + _DAY_S * date(int(on[1]), int(on[2]), int(on[3])).toordinal()
    except ValueError:
        return seconds


def _first(ds: Dataset, keyword: str) -> str:
    return "".join(texts(ds, Tag(keyword))[:1])


def _name(ds: Dataset, keyword: str) -> str:
    return free_text(ds, Tag(keyword))[:_LONGEST_NAME]


def _positive(ds: Dataset, keyword: str) -> float | None:
    """Return the largest number of an element, None where none is above 0."""
    value = max(numbers(ds, keyword), default=0.0)
    return value if value > 0.0 else None
