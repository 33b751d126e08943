"""What a scanner's own name of its pulse sequence says.

Siemens writes ``*tfl3d1_16ns``, GE ``EDR3D`` or ``3dtof``, Philips ``T1TFE`` or ``DwiSE``.
"""

from __future__ import annotations

import re
from typing import Final

from converters.sequence_nouns import Clue

_BECAUSE: Final = "the pulse sequence is one for it"
_NAMES: Final = (  # (expression, kind, weight); all that fit count
    (r"ep_?b\d|re_b\d|^dwi|^dti|resolve|diff", "DWI", 8.0),
    (r"epfid|epse|^\*?ep\d?d|epi|^ep$|mbep", "EPI", 4.4),
    (r"swi|swan", "SWI", 8.0),
    (r"tof|inhance|tricks|fl\dd\d?_?v\d|qflow|^pca?$|^pc_", "angiography", 7.0),
    (r"fl3d\d?r(?!_?ns)", "angiography", 2.5),
    (r"^\*?fm\d?d", "field map", 8.0),
    (r"^\*?me\dd|t2\*?ffe|merge", "T2*", 5.0),
    (r"^\*?ci3d|^\*?tfi|^\*?fi\dd|b-?ffe|b-?tfe|fiesta|^\*?de3d|ssfp", "balanced SSFP", 6.0),
    (r"asl|tgse", "ASL", 5.0),
    (r"csi|svs|press|steam|laser", "spectroscopy", 8.0),
    (r"spcir|flair", "FLAIR", 2.5),
    (r"^\*?tfl3d|t1-?ffe|t1-?tfe|bravo|spgr|mprage", "T1", 2.0),
    (r"edr3d|efgre3d", "T1", 0.5),
    (r"^\*?h2d|haste|ssfse|frfse", "T2", 1.0),
)


def clues(name: str) -> tuple[Clue, ...]:
    """Return what the name of a pulse sequence speaks for."""
    plain = name.strip().lower()
    return tuple(
        Clue(kind, weight, _BECAUSE) for words, kind, weight in _NAMES if re.search(words, plain)
    )
