"""What the header of a series says about its acquisition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SecondaryCaptureImageStorage

from converters.attributes import free_text, is_present, optional_number, texts

_NO_AGENT: Final = frozenset({"", "NO", "NONE", "N", "0", "WITHOUT", "NEIN", "OHNE", "NON", "NIL"})
_LONGEST_NAME: Final = 128
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_TIME: Final = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2}(?:\.[0-9]{1,6})?)")
_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Physics:
    """How a series was acquired; None where the header does not say."""

    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    b_value: float | None = None
    scanning: tuple[str, ...] = ()
    acquisition_type: str = ""
    has_angio_flag: bool = False


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
        Image Type (0008,0008), upper case.
    physics : Physics
        The acquisition.
    has_agent : bool
        An element names a contrast agent.
    is_picture : bool
        Colour or a secondary capture: made for looking at.
    acquired_at_s : float, optional
        Seconds since an arbitrary day; only orders the series of a study.
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


def evidence_of(ds: Dataset) -> SequenceEvidence:
    """Return what one header of a series says; what is absent or malformed is left out."""
    return SequenceEvidence(
        modality=_word(ds, "Modality"),
        description=_name(ds, "SeriesDescription"),
        protocol_name=_name(ds, "ProtocolName"),
        sequence_name=_name(ds, "SequenceName") or _name(ds, "PulseSequenceName"),
        image_type=_words(ds, "ImageType"),
        physics=_physics(ds),
        has_agent=_has_agent(ds),
        is_picture=_is_picture(ds),
        acquired_at_s=_acquired_at_s(ds),
    )


def _physics(ds: Dataset) -> Physics:
    return Physics(
        repetition_time_ms=_positive(ds, "RepetitionTime"),
        echo_time_ms=_positive(ds, "EchoTime") or _positive(ds, "EffectiveEchoTime"),
        inversion_time_ms=_positive(ds, "InversionTime"),
        flip_angle_deg=_positive(ds, "FlipAngle"),
        b_value=_positive(ds, "DiffusionBValue"),
        scanning=_words(ds, "ScanningSequence"),
        acquisition_type=_word(ds, "MRAcquisitionType"),
        has_angio_flag=_word(ds, "AngioFlag") == "Y",
    )


def _has_agent(ds: Dataset) -> bool:
    if is_present(ds, Tag("ContrastBolusAgentSequence")):
        return True
    agent = " ".join(_words(ds, "ContrastBolusAgent"))
    return agent not in _NO_AGENT or _positive(ds, "ContrastBolusVolume") is not None


def _is_picture(ds: Dataset) -> bool:
    photometric = _word(ds, "PhotometricInterpretation")
    is_capture = SecondaryCaptureImageStorage in texts(ds, Tag("SOPClassUID"))
    return is_capture or bool(photometric and not photometric.startswith("MONOCHROME"))


def _acquired_at_s(ds: Dataset) -> float | None:
    """Return when the acquisition began; its time may stand in one element or in two."""
    moment = "".join(texts(ds, Tag("AcquisitionDateTime"))[:1])
    day, time = moment[:8], moment[8:]
    if not moment:
        day = "".join(texts(ds, Tag("AcquisitionDate"))[:1])
        time = "".join(texts(ds, Tag("AcquisitionTime"))[:1])
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


def _words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(word.upper() for word in texts(ds, Tag(keyword)))


def _word(ds: Dataset, keyword: str) -> str:
    return next(iter(_words(ds, keyword)), "")


def _name(ds: Dataset, keyword: str) -> str:
    return free_text(ds, Tag(keyword))[:_LONGEST_NAME]


def _positive(ds: Dataset, keyword: str) -> float | None:
    value = optional_number(ds, Tag(keyword))
    return value if value is not None and value > 0.0 else None
