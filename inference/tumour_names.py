"""What files of other projects call sequences, labels and regions of brain tumours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converters.volume import Role

Entry = dict[str, Any]
"""A table of a ``model.toml``, or part of one."""

_INPUTS: Final[Mapping[Role, Entry]] = {
    "flair": {"role": "flair", "sequence": "FLAIR"},
    "t1": {"role": "t1", "sequence": "T1w"},
    "t1gd": {"role": "t1gd", "sequence": "T1gd", "contrast": True},
    "t2": {"role": "t2", "sequence": "T2w"},
}
_ROLES: Final[Mapping[Role, str]] = {
    "flair": "flair|t2 ?flair|t2f|flair ?t2|fl",
    "t1": "t1( ?w| weighted)?|t1n|t1 ?(pre|native)",
    "t1gd": "t1( ?w| weighted)? ?(c|ce|gd|km|contrast|post|post contrast|contrast enhanced)",
    "t2": "t2( ?w| weighted)?",
}

_CATEGORY: Final = {
    "value": "49755003",
    "scheme": "SCT",
    "meaning": "Morphologically Abnormal Structure",
}


def _concept(
    label: str, description: str, code: tuple[str, str, str], color: tuple[int, int, int]
) -> Entry:
    value, scheme, meaning = code
    return {
        "label": label,
        "description": description,
        "category": dict(_CATEGORY),
        "type_code": {"value": value, "scheme": scheme, "meaning": meaning},
        "color_rgb": list(color),
    }


# Codes of DICOM CID 7168 and 7169.
OEDEMA: Final = _concept(
    "Oedema",
    "Oedema and infiltrated tissue around the tumour core",
    ("79654002", "SCT", "Edema"),
    (255, 217, 61),
)
CORE: Final = _concept(
    "Necrotic and non-enhancing core",
    "Tumour core that does not enhance: necrosis and non-enhancing tumour, merged",
    ("C81175", "NCIt", "Non-Enhancing Lesion"),
    (77, 150, 255),
)
NECROSIS: Final = _concept(
    "Necrosis",
    "Necrotic part of the tumour core",
    ("6574001", "SCT", "Necrosis"),
    (150, 110, 255),
)
ENHANCING: Final = _concept(
    "Enhancing tumour",
    "Tumour that takes up contrast agent",
    ("C113842", "NCIt", "Enhancing Lesion"),
    (255, 72, 72),
)
WHOLE: Final = _concept(
    "Whole tumour",
    "Everything that is changed by the tumour: oedema, core and enhancing tumour",
    ("108369006", "SCT", "Neoplasm"),
    (255, 217, 61),
)
TUMOUR_CORE: Final = _concept(
    "Tumour core",
    "Enhancing tumour with the necrotic and non-enhancing core",
    ("372087000", "SCT", "Neoplasm, Primary"),
    (77, 150, 255),
)

_LABELS: Final = (
    (r"(peri ?tumou?ral )?edema(tous)?( .*)?|ed|snfh", OEDEMA),
    (r"ncr|necrosis|necrotic( tumor)?( core)?", NECROSIS),
    (r"(necrotic and )?non ?enhancing.*|net|netc|ncr net|net ncr", CORE),
    (r"(gd )?enhanc(ing|ement)( .*)?|et|at", ENHANCING),
)
# Regions, the widest first: the order in which they are painted.
_REGIONS: Final = (
    (r"whole( tumor)?|wt", WHOLE),
    (r"(tumor )?core|tc", TUMOUR_CORE),
    (r"enhancing( tumor)?|et", ENHANCING),
)
_PAINTED: Final = (OEDEMA, CORE, ENHANCING)


def _plain(name: str) -> str:
    """Return a name in small letters, American spelling, words apart."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    return words.replace("tumour", "tumor").replace("oedema", "edema")


def shown(name: str) -> str:
    """Return a name of a foreign file that is safe to print."""
    return "".join(one if one.isprintable() else "?" for one in name)[:60]


def input_of(name: str) -> Entry | None:
    """Return the input that a channel's name means; None where it means none that is known."""
    plain = _plain(name.replace("*", "star"))  # T2* is not T2
    found = [role for role, pattern in _ROLES.items() if re.fullmatch(pattern, plain)]
    return dict(_INPUTS[found[0]]) if found else None


def label_of(name: str) -> Entry | None:
    """Return what a label's name means; None where it means nothing that is known."""
    plain = _plain(name)
    return next((one for pattern, one in _LABELS if re.fullmatch(pattern, plain)), None)


def rank_of(name: str) -> int | None:
    """Return the place of a region in the order of painting: whole, core, enhancing."""
    plain = _plain(name)
    ranks = [rank for rank, (pattern, _) in enumerate(_REGIONS) if re.fullmatch(pattern, plain)]
    return ranks[0] if ranks else None


def painted_by(names: Sequence[str]) -> tuple[Entry | None, ...]:
    """Return what each of some nested regions, the widest first, leaves uncovered.

    Only the three regions of the BraTS challenge together are known, and one region alone.
    """
    ranks = [rank_of(name) for name in names]
    if ranks == list(range(len(_REGIONS))):
        return _PAINTED
    if len(ranks) == 1 and ranks[0] is not None:
        return (_REGIONS[ranks[0]][1],)
    return tuple(None for _ in names)


def regions_of(labels: Sequence[Entry]) -> list[Entry]:
    """Return the regions of the BraTS challenge, where the labels are its parts."""
    codes = [entry["type_code"]["value"] for entry in labels]
    known = {one["type_code"]["value"] for one in (OEDEMA, CORE, NECROSIS, ENHANCING)}
    ends = {OEDEMA["type_code"]["value"], ENHANCING["type_code"]["value"]}
    if not ends <= set(codes) <= known or len(codes) == len(ends):
        return []
    core = [entry["number"] for entry in labels if entry["label"] != OEDEMA["label"]]
    return [
        {**WHOLE, "labels": [entry["number"] for entry in labels]},
        {**TUMOUR_CORE, "labels": core},
    ]
