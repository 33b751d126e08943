"""What one series is by its own evidence.

Every clue gives odds for a kind of sequence; the odds are added up and shared out, with a share for
what nobody thought of. So contradictions lower a score and agreement raises it. A score ranks
certainty; how often it is right is measured on the corpus of headers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from converters import sequence_physics, sequence_pulse, sequence_words
from converters.sequence_evidence import SequenceEvidence
from converters.sequence_nouns import Classification, Clue
from converters.sequence_words import Words
from converters.volume import Role

ROLES: Final[Mapping[str, Role]] = {"FLAIR": "flair", "T1w": "t1", "T1gd": "t1gd", "T2w": "t2"}
OTHER: Final = "other: "
_KINDS: Final = {"FLAIR": "FLAIR", "T1w": "T1", "T1gd": "T1", "T2w": "T2"}
_UNKNOWN: Final = "unknown"
_PRIOR: Final = 1.0  # of what nobody thought of
DECISIVE: Final = 20.0
_LOOSE: Final = 4.5
_HINT: Final = 1.0
_SPINE: Final = 8.0
_NAMED: Final = {"FLAIR": 4.5, "T1": 3.5, "T2": 3.0, "T2*": 4.0, "PD": 3.0}
_DERIVED: Final = 1.5
_LEAST_RIVAL: Final = 0.005
_IMAGE_TYPES: Final = {
    "LOCALIZER": "localizer",
    **dict.fromkeys(("ADC", "FA", "TRACEW", "TENSOR", "DIFFUSION", "EADC", "ISOTROPIC"), "DWI"),
    **dict.fromkeys(("PERFUSION", "CBF", "CBV", "RCBF", "RCBV", "RELCBF", "RELCBV", "MTT",
                     "TTP", "TMAX", "KTRANS"), "perfusion"),
    **dict.fromkeys(("ASL", "PERFUSION_ASL"), "ASL"),
    **dict.fromkeys(("FMRI", "T_MAP", "BOLD", "GLM"), "functional"),
    **dict.fromkeys(("MIP", "MNIP", "MINIP", "MIN IP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE",
                     "PJN", "VOLUME_RENDERED"), "projection"),
    **dict.fromkeys(("MPR", "CSA MPR", "REFORMATTED", "CPR", "CURVED"), "reformat"),
    **dict.fromkeys(("SUBTRACTION", "SUBTRACT", "SUB"), "subtraction"),
    **dict.fromkeys(("SWI", "SWIP", "QSM"), "SWI"),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "PHASE_MAP", "I", "IMAGINARY"), "phase image"),
    **dict.fromkeys(("VELOCITY", "TOF", "PCA", "VELOCITY MAP", "MRA", "FLOW_ENCODED"),
                    "angiography"),
    **dict.fromkeys(("T1 MAP", "T2 MAP", "T1_MAP", "T2_MAP", "T2_STAR", "T2 STAR MAP", "R2_STAR",
                     "T2_STAR MAP", "R2_STAR MAP", "T2STAR MAP", "PD MAP"), "parameter map"),
    **dict.fromkeys(("B0 MAP", "B1 MAP", "B0", "B1", "FIELD MAP"), "field map"),
    **dict.fromkeys(("FAT", "F", "OPP_PHASE", "OUT_PHASE", "OP", "OUT PHASE", "OPPOSED_PHASE",
                     "FF", "FAT_FRACTION", "FATFRACTION"), "Dixon"),
    **dict.fromkeys(("SCREEN SAVE", "SCREENSHOT", "VXTL STATE", "CSA REPORT"), "screenshot"),
    **dict.fromkeys(("CSAPARALLEL", "SPECTROSCOPY"), "spectroscopy"),
    "SYNTHETIC": "synthetic",
    "COMPOSED": "composed images",  # of several stations; a brain fits into one
    **dict.fromkeys(("UNI", "UNI-DEN", "UNI_DEN", "INV1", "INV2"), "MP2RAGE"),
}  # fmt: skip
_CONTRASTS: Final = {  # Acquisition Contrast (0008,9209)
    "T1": ("T1", 2.5),
    "T2": ("T2", 2.0),
    "FLUID_ATTENUATED": ("FLAIR", 4.0),
    "PROTON_DENSITY": ("PD", 3.0),
    "STIR": ("STIR", 5.0),
    "T2_STAR": ("T2*", 4.0),
    "DIFFUSION": ("DWI", 8.0),
    "PERFUSION": ("perfusion", 8.0),
    "SUSCEPTIBILITY": ("SWI", 8.0),
    "FLOW_ENCODED": ("angiography", 6.0),
    "TIME_OF_FLIGHT": ("angiography", 8.0),
    "TOF": ("angiography", 8.0),
    "MT": ("magnetisation transfer", 3.0),
    "TAGGING": ("tagging", 8.0),
}
_MODALITIES: Final = frozenset({"CT", "PT", "NM", "US", "SEG", "SR", "PR", "KO"})
OTHER_PARTS: Final = frozenset({
    "CSPINE", "TSPINE", "LSPINE", "SPINE", "SSPINE", "TLSPINE", "CTSPINE", "LSSPINE", "WHOLESPINE",
    "ABDOMEN", "PELVIS", "BREAST", "PROSTATE", "HEART", "KNEE", "SHOULDER", "CHEST", "LIVER", "HIP",
    "ANKLE", "FOOT", "WRIST", "HAND", "ELBOW", "LEG", "THIGH", "ARM", "EXTREMITY", "UTERUS",
})  # fmt: skip


class Names(NamedTuple):
    """What description and protocol say together, and what each says of a contrast agent."""

    kind: Words
    own_contrast: str
    further_contrast: str


class Contrast(NamedTuple):
    """How certain a contrast agent was given before a T1-weighted series, 0 to 1, and why."""

    share: float
    because: tuple[str, ...]


def names_of(evidence: SequenceEvidence) -> Names:
    """Return what the names say; the description counts first.

    Some vendors put the name of the whole examination into Protocol Name, "brain with diffusion
    and contrast", which says nothing about one series of it.
    """
    own = sequence_words.read(evidence.description)
    further = sequence_words.read(evidence.protocol_name)
    if own.is_silent:
        return Names(further, own.contrast, further.contrast)
    if own.weighting == further.weighting:
        return Names(own, own.contrast, further.contrast)
    return Names(own, own.contrast, "")


def contrast_of(named: str, *, has_agent: bool, is_later: bool = False) -> Contrast:
    """Return what names and contrast elements say together.

    Parameters
    ----------
    named : str
        ``before``, ``after`` or ''.
    has_agent : bool
        An element names an agent; some scanners carry it on into series before it was given.
    is_later : bool
        The agent was given only after this series.
    """
    if named == "before":
        return Contrast(0.1 if has_agent else 0.03, ("name says before contrast agent",))
    if named == "after":
        given = ("contrast agent given",) if has_agent else ()
        return Contrast(0.99 if given else 0.97, ("name says after contrast agent", *given))
    if has_agent and is_later:
        return Contrast(0.1, ("contrast agent given later",))
    if has_agent:
        return Contrast(0.88, ("contrast agent given",))
    return Contrast(0.12, ("no contrast agent mentioned",))


def is_agent_later(evidence: SequenceEvidence) -> bool:
    """Say whether the header puts the agent after the acquisition."""
    at_s, agent_s = evidence.acquired_at_s, evidence.agent_at_s
    return at_s is not None and agent_s is not None and agent_s > at_s


def classify(
    evidence: SequenceEvidence,
    names: Names | None = None,
    contrast: Contrast | None = None,
    further: Sequence[Clue] = (),
) -> Classification:
    """Return what a series is, without a look at its neighbours.

    Parameters
    ----------
    evidence : SequenceEvidence
        What its header says.
    names : Names, optional
        What its names say, where that is already known.
    contrast : Contrast, optional
        What the study says of a contrast agent, instead of this series alone.
    further : sequence of Clue
        What the study or the geometry says of its kind.
    """
    names = names_of(evidence) if names is None else names
    if contrast is None:
        contrast = contrast_of(
            names.own_contrast or names.further_contrast,
            has_agent=evidence.has_agent,
            is_later=is_agent_later(evidence),
        )
    clues = _settled(evidence) or (*_clues(evidence, names), *further)
    return _found(_shares(clues), clues, evidence, contrast)


def _settled(evidence: SequenceEvidence) -> tuple[Clue, ...]:
    """Return what leaves nothing to weigh up."""
    if evidence.modality != "MR":
        kind = evidence.modality if evidence.modality in _MODALITIES else "not MR"
        return (Clue(kind, DECISIVE, "the modality is not MR"),)
    if evidence.is_picture:
        return (Clue("screenshot", DECISIVE, "made for looking at"),)
    return ()


def _clues(evidence: SequenceEvidence, names: Names) -> tuple[Clue, ...]:
    found = [*_word_clues(names.kind, evidence)]
    typed = next((_IMAGE_TYPES[one] for one in evidence.image_type if one in _IMAGE_TYPES), "")
    if typed:
        found.append(Clue(typed, DECISIVE + 1.0, "the image type says so"))
    if "DERIVED" in evidence.image_type:
        found.append(Clue("derived images", _DERIVED, "derived images"))
    if evidence.weighting in _CONTRASTS:
        found.append(Clue(*_CONTRASTS[evidence.weighting], "the acquisition contrast says so"))
    if evidence.body_part in OTHER_PARTS:  # may be left over from the patient before
        weight = _SPINE if "SPINE" in evidence.body_part else _LOOSE
        found.append(Clue("another part of the body", weight, "not of the head"))
    found += sequence_physics.clues(evidence.physics)
    found += sequence_pulse.clues(evidence.sequence_name)
    return tuple(found)


def _foreign_weight(words: Words, evidence: SequenceEvidence) -> float:
    """Return how much a word for a kind without a role counts."""
    image_type = evidence.image_type
    if sequence_physics.excludes(evidence.physics, words.foreign):  # "T1 for DTI"
        return _LOOSE
    if words.foreign == "reformat" and "ORIGINAL" in image_type:  # MPR also stands for MPRAGE
        return _HINT
    if words.foreign == "reformat" and "DERIVED" in image_type:
        return DECISIVE
    return DECISIVE if words.is_firm else _LOOSE


def _word_clues(words: Words, evidence: SequenceEvidence) -> Iterable[Clue]:
    if words.foreign:
        yield Clue(words.foreign, _foreign_weight(words, evidence), "the name says so")
    if words.weighting:
        yield Clue(words.weighting, _NAMED[words.weighting], f"name says {words.weighting}")
    for kind, weight in words.hints.items():
        yield Clue(kind, weight, "the name hints at it")


def _shares(clues: Iterable[Clue]) -> dict[str, float]:
    """Return the share of each kind; they add up to 1."""
    odds = {_UNKNOWN: _PRIOR}
    for clue in clues:
        odds[clue.kind] = odds.get(clue.kind, 0.0) + clue.weight
    total = sum(math.exp(one) for one in odds.values())
    return {kind: math.exp(one) / total for kind, one in odds.items()}


def _found(
    shares: Mapping[str, float],
    clues: Iterable[Clue],
    evidence: SequenceEvidence,
    contrast: Contrast,
) -> Classification:
    """Return the sequence with the largest share, and the one that comes next."""
    scores = _scores(shares, contrast)
    best, rival, *_ = [*sorted(scores, key=lambda one: (-scores[one], one in _KINDS, one)), ""]
    kind = _KINDS.get(best, best.removeprefix(OTHER))
    because = list(contrast.because) if kind == "T1" else []
    because += dict.fromkeys(one.because for one in clues if one.kind == kind and one.because)
    times = sequence_physics.describe(evidence.physics)
    if times or evidence.modality == "MR":
        because.append(times or "no acquisition times given")
    return Classification(
        sequence=best,
        role=ROLES.get(best),
        score=0.0 if kind == _UNKNOWN else round(scores[best], 2),
        reason=f"{best}: {', '.join(because)}",
        rival=rival if scores.get(rival, 0.0) >= _LEAST_RIVAL else "",
        rival_score=round(scores.get(rival, 0.0), 2),
    )


def _scores(shares: Mapping[str, float], contrast: Contrast) -> dict[str, float]:
    """Return the score of each sequence; all kinds that serve no role count together."""
    of_t1 = {"T1w": 1.0 - contrast.share, "T1gd": contrast.share}
    scores = {
        sequence: shares[kind] * of_t1.get(sequence, 1.0)
        for sequence, kind in _KINDS.items()
        if kind in shares
    }
    foreign = {kind: share for kind, share in shares.items() if kind not in _KINDS.values()}
    unknown = foreign.pop(_UNKNOWN)
    if not foreign:
        return {**scores, f"{OTHER}{_UNKNOWN}": unknown}
    kind = max(foreign, key=lambda one: (foreign[one], one))
    return {**scores, f"{OTHER}{kind}": sum(foreign.values())}
