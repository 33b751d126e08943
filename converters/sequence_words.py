"""What the names of MR series say, in the words of vendors and several languages.

Series Description, Protocol Name and Sequence Name are free text; they are read for the words
below and are never repeated in a reason.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

_FOREIGN: Final = (  # kinds of series that serve no role; the first that fits counts
    ("localizer", (r"\bloc\b|locali[sz]|lokali|scout|survey|surview|pilot|3 ?plane|plan ?scan"
                  r"|repera|ubersicht|aahead|smart ?brain|3 ?way")),
    ("spectroscopy", r"\bsvs|\bcsi\b|\be?m?press\d*\b|s?laser\b|steam|spectr|\bmrs\b|gaba"),
    ("field map", (r"field ?map|\bfield\b|\bb[01] ?map|\bshim|\bcal(?:ib\w*)?\b|\badjgre|topup"
                  r"|distortion")),
    ("DWI", (r"diff|dwi|dti|adc\b|\be?adc|trace|tensor|tracto|colfa|\bfa\b|apparent|exponential"
            r"|\bb ?(?:5|7|8|10|15|20)00\b|\bep b\d|resolve\b|\bdf\d")),
    ("perfusion", r"perf|\bdce|\bdsc|\bpwi|cb[fv]\b|\bmtt\b|ttp\b|tmax|\bp?c?asl\b|dynami"),
    ("functional", (r"bold|fmri|\brest\d*\b|resting|\bfunc|checker|\btask|mbep2d|\bep2d|\bepi\b"
                   r"|glm\b|t map|physiolog|\bmoco")),
    ("SWI", r"\bswi|swi\b|\bswan|suscept|venous|veno ?bold|\bmip images|\bsw\b|\bpha\b"),
    ("angiography", (r"\btof|angio|\bmra|\bmrv|phase contrast|inhance|venogr|\btwist\b|\btricks"
                    r"|vessel scout")),
    ("subtraction", r"\bsub\b|subtr|soustr|sottraz"),
    ("projection", r"mip\b|\bminip|projection|\bmip"),
    ("reformat", r"\bmpr\b|reformat|\bcurved\b|collection"),
    ("parameter map", r"t[12] ?map|mapping|molli|synthetic|syntac|\bmagic\b|\bquant"),
    ("STIR", r"stir\b"),
    ("DIR", r"\bdir\b|double inversion"),
    ("balanced SSFP", r"\bciss|fiesta|ssfp|\btrufi|true ?fisp|\bb ?ffe|balanced"),
    ("magnetisation transfer", r"\bmt[cr]\b|\bmt on\b|magneti[sz]ation transfer"),
    ("spine", r"spine|wirbels|\b[hbl]ws\b|lumbar|cervical|colonna|rachis"),
    ("screenshot", r"screen|captur|snapshot|phoenix|\breport|\bdose\b|key image|\bdesign\b"),
    ("segmentation", r"segment|\bmask\b"),
)  # fmt: skip
_T2_STAR: Final = r"t2 ?\*|t2 ?star|t2 ?w? ?ffe|\bgre|gre\b|ha?emo\b|\bmedic\b|\bmerge\b|gradient"
_PROTON: Final = r"\bpdw?\b|\bpdw?tse|proton|\bdp\b|densite de proton"
# numbered words end like a weighting: "left1", "effort2"
_T1: Final = (
    r"(?<!lef)(?<!righ)(?<!effor)t1|mp ?2? ?rage|\bbravo|spgr|\btfl|turbo ?flash|\bvibe\b|thrive"
    r"|\blava\b"
)
_T2: Final = r"(?<!effor)t2(?! ?(?:\*|star))"
_FLAIR: Final = r"flair|dark ?fl|\bda ?fl\b|\btirm?\b|fluid att"
_STUDY: Final = (  # what was ordered, not what this series is
    r"with and without|without and with|with without|\bw ?wo\b|\bwo ?w\b|\bw w o\b|\bwo with\b"
    r"|\bw and w o\b|\bmit und ohne\b|brain with\b|brain wo\b|post ?op(?:erat\w*)?"
)
_BEFORE: Final = (
    r"\bpre(?!ss|p|s)|\bw ?o\b|without|\bnon? ?(?:contrast|gd|gad|enh|km|c\b)|nativ|\bsans\b"
    r"|\bohne\b|\bsenza\b|\bsin\b|unenhanced|\bbez\b|\bvor km|\bzonder\b|\butan\b"
)
_AFTER: Final = (
    r"\bpost(?!er)|post\b|gd\b|\bgd|\bgad|gad\b|gado|\+ ?c\b|\bc ?\+|\+ ?$|km\b|\bkm|\bcontrast"
    r"|kontrast|contraste|\bmdc\b|\bm\.?d\.?c\b|\bce\b|t1 ?w? ?ce\b|t1 ?w? ?c\b|\bc t1"
    r"|t1 (?:\w+ )*c\b|corc\b|\binj|\bavec\b|\bnach\b|(?<!un)enhanced|dotarem|\bpo kontr|\bmed k\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the names of a series say.

    Parameters
    ----------
    foreign : str
        A kind of series that serves no role, '' for none.
    weighting : str
        ``FLAIR``, ``T1``, ``T2``, ``T2*``, ``PD``, or '' where the names do not say.
    contrast : str
        ``before`` or ``after`` contrast agent, or ''.
    """

    foreign: str = ""
    weighting: str = ""
    contrast: str = ""


def read(text: str) -> Words:
    """Return what free text says about a series."""
    plain = _plain(text)
    own = re.sub(_STUDY, " ", plain)
    return Words(
        foreign=next((kind for kind, words in _FOREIGN if re.search(words, own)), ""),
        weighting=_weighting(own),
        contrast=_contrast(own),
    )


def _plain(text: str) -> str:
    """Return lower-case words without accents, parted by single blanks."""
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(one for one in decomposed if not unicodedata.combining(one)).lower()
    return re.sub(r"[^a-z0-9*+]+", " ", bare).strip()


def _weighting(plain: str) -> str:
    has_t1, has_t2 = bool(re.search(_T1, plain)), bool(re.search(_T2, plain))
    if re.search(_FLAIR, plain):  # a T1-weighted FLAIR is a T1
        return "T1" if has_t1 and not has_t2 else "FLAIR"
    if has_t1 != has_t2:
        is_star = has_t2 and re.search(_T2_STAR, plain)
        return "T1" if has_t1 else "T2*" if is_star else "T2"
    if has_t1:
        return ""
    if re.search(_T2_STAR, plain):
        return "T2*"
    return "PD" if re.search(_PROTON, plain) else ""


def _contrast(plain: str) -> str:
    if re.search(_BEFORE, plain):
        return "before"
    return "after" if re.search(_AFTER, plain) else ""
