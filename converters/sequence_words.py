"""What the names of MR series say, in the words of vendors and several languages.

Series Description and Protocol Name are free text; they are read for the words below and are never
repeated in a reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Table: TypeAlias = Sequence[tuple[str, str]]

# Kinds of series that serve no role; the first that fits counts. Firm words mean nothing else.
_FIRM: Final[Table] = (
    ("localizer", (r"\bloc\b|locali[sz]|lokali|scout|survey|surview|3 ?plane|plan ?scan|\bplane loc"
                  r"|repera|ubersicht|aahead|smart ?brain|3 ?way|topogram|setter\b|navigator"
                  r"|\b3 ?pl\b|\blocator|auto ?align|\bplanning|scan ?o ?gram|\bscano\b|tri ?plan"
                  r"|\bcentra[jt]|planung|orientierung")),
    ("spectroscopy", r"\bsvs|\bcsi\b|\be?m?press\d*\b|s?laser\b|steam|spectr|\bmrs\b|gaba|mrsi"),
    ("field map", (r"field ?map|\bfmap|b[01] ?map|\bshim|\badjgre|topup"
                  r"|sense ?ref|ref ?scan|coil ?(?:ref|sens|surv)"
                  r"|\bcalib\w*|fmri distortion|spin ?echo distortion|\bblip|pe ?polar"
                  r"|distcorr|\bsefm|\bdream\b|\bafi\b|b1 ?plus|rev(?:erse)? ?(?:pe|b0)\b")),
    ("DWI", (r"diff(?!er)|difus|dwi|dti|adc\b|\be?adc|tracew|tensor|tracto|colfa|apparent|exponent"
            r"|\b[sm]?b ?[1-9]\d?00s?\b|\bep b\d|resolve\b|\bdf\d|hardi\b|noddi|dki\b|dmri"
            r"|\b[sd]?dw\b|\bdw ?(?:ssh|epi)")),
    ("ASL", r"\bp?c?asl\b|\bpld\d|arterial spin|\bm0\b"),
    ("perfusion", (r"\bdce|\bdsc|\bpwi|cb[fv]\b|\bmtt\b|ttp\b|tmax|ktrans|perfus|relcb|dynami"
                  r"|\bdyn\b")),
    ("functional", (r"bold|fmri|resting|checker|mbep2d|\bep2d|physiolog|sbref|glm\b"
                   r"|nback|rest ?state")),
    ("SWI", r"\bswi|swi\b|\bswan|suscept|veno ?bold|ven bold|\bmip images|\bqsm\b"),
    ("angiography", (r"\btof|angio|\bmra|\bmrv|phase contrast|inhance|\btwist\b|\btricks"
                    r"|time of flight|\bpca\b|\bmotsa\b|\bwillis|arteri[aeo]|artere")),
    ("subtraction", r"\bsub\b(?! ?\d)|subtr|soustr|sottraz|substr|sustrac|subtrak|minus pre"),
    ("projection", r"mip\b|\bminip|projection|\bmip|\bvrt\b|volume render"),
    ("reformat", (r"\bmpr (?:\w+ )*(?:ax|tra|cor|sag|obl)|\b(?:ax|axial|cor|sag|tra)(?: \w+)* mpr\b"
                 r"|reformat|\brfmt|\bcurved\b|collection|multi ?planar|\brange\b")),
    ("synthetic", r"synthetic|synthmr|syntac|\bsy ?mri|\bmagic\b|\bqalas"),
    ("parameter map", (r"(?:t[12]|t2 ?\*|\br[12]s?|\bpd) ?map|\bvfa\b|mapping|molli|\bquant|relaxom"
                      r"|mp2rage(?: \w+)* t1 images|myelin|\bmwf\b|\bse mc\b|\bm[ce]se\b|cpmg"
                      r"|\bmpm\b|mtflash")),
    ("flow", r"csf flow|\bcine\b|aqu?educt|cisterno|myelo|\bmrcp\b"),
    ("nulled tissue", r"fgatir|(?:wm|gm|csf|matter) ?null"),
    ("MP2RAGE inversion", r"\binv ?[12]\b"),
    ("MP2RAGE", r"mp2 ?rage|\buni images|\buni ?den\b"),
    ("STIR", r"stir\b"),
    ("DIR", r"double inv|doppelte inv|\bdir3d|(?<!\d )\bdir\b"),
    ("balanced SSFP", (r"\bciss|fiesta|ssfp|\btrufi|true ?fisp|\bb ?ffe|balanced|\bbtfe"
                      r"|\bdess\b")),
    ("UTE", r"\bpetra\b|\bute\b|\bzte\b"),
    ("attenuation correction", r"\bac\b(?! ?pc)|attenuation|\bmrac\b|\bu ?map\b"),
    ("part of the brain", (r"pituitar|\bsella|hypoph|ipofisi|hipofis|\borbit|\biac\b|inner ear"
                          r"|innenohr|\bcai\b|auditory|felsenbein"
                          r"|trigemin|\bcpa\b|sinus(?:es)?\b|\btmj\b|temporal (?:lobe|bone)"
                          r"|petrous|cranial nerve|hirnnerv|mastoid|cochlea|\bkhbw|\brochers?\b"
                          r"|\boptic|neuromelanin|\blocus c|cavernous"
                          r"|\biams?\b|chiasm")),
    ("hippocampus", r"h?ip+o[ck]+amp|\bhipp\b"),  # or only the direction of its slices
    ("composed images", r"\bcompos(?!ite)|\bcompo\b|mobiview|\bstitch"),
    ("neck", r"\bneck\b|carotid|carotis|\bhals\b|parotid|pharyn|laryn|tsa\b|supra ?aort"),
    ("spine", (r"spine|wirbel|\b[hblg]ws\b|\blumb|\bcerv|colonna|rachis|columna|coluna"
              r"|\bthor(?:a|\b)|\b[ctl] ?spn?\b|sacrum|\bmoelle|\bmidollo|\bmedula"
              r"|\blomb|\bdors(?:al)?\b|\btorac|ruggenm")),
    ("Dixon", (r"dixon(?: \w+)* (?:f|fat|opp?|out\w*)\b|opp(?:osed)? phase|out of phase"
              r"|fat only|\bopp\b|vibe(?: \w+)* f\b|\bff map")),
)  # fmt: skip
_LOOSE: Final[Table] = (  # may also stand in the name of a series that serves a role
    ("localizer", r"pilot\b"),
    ("field map", r"\bfield\b|distortion|\bcal\b|\bbias\b|\bb1\b"),
    ("parameter map", r"\bfa ?\d|flip ?angle|\d ?deg\b"),
    ("DWI", r"\bfa\b(?! ?\d)|trace\b|\bb0\b"),
    ("ASL", r"\basl"),
    ("perfusion", r"perf"),
    ("functional", r"\brest\d*\b|\bfunc|\btask|\bepi\b|t map|\bmoco"),
    ("angiography", (r"\bpc\b|inflow|\bvenc|vessel scout|\bcow\b|venogr|ph?lebogr"
                    r"|\b[23]d ?pc|\bpc ?[23]d|\bpcv\b")),
    ("SWI", r"venous|\bsw\b|\bpha\b"),
    ("phase image", r"\bphase\b|\bimaginary\b|\bimag\b"),
    ("magnetisation transfer", (r"\bmt[cr]?\b|\bmt ?o(?:n|ff)\b|mtsat|ihmt"
                               r"|magneti[sz]ation transfer")),
    ("DWI", r"(?<!t)\d dir\b"),
    ("reformat", r"(?<!t1w )(?<!t1w)\bmpr\b|\brecon\b|rekon\w*"),
    ("screenshot", (r"screen|captur|snapshot|phoenix|\breport|\bdose\b|key image|\bdesign\b"
                   r"|\bresults?\b|\bsummary\b")),
    ("segmentation", r"segment|\bmask\b"),
)  # fmt: skip
_T2_STAR: Final = (
    r"t2 ?\*|t2 ?star|t2 ?w? ?ffe|\bt2 ?s(?:w|\b)|\bgre|gre\b|ha?emo(?!d)"
    r"|\bmedic\b|\bmerge\b|gradient"
)
_PROTON: Final = r"\bpdw?\b|\bpdw?tse|proton|\bdp\b|densite de proton|densita protonica"
# numbered words end like a weighting: "left1", "effort2"
_T1: Final = r"(?<!lef)(?<!righ)(?<!effor)t1"
_T1_TECHNIQUE: Final = (  # of T1 unless another weighting is named
    r"mp ?rage|\bmemp|\bbravo|spgr|\btfl|turbo ?flash|\bvibe\b"
    r"|thrive|\blava\b|\bmdeft\b|(?<!t2 )(?<!t2w )\b3d ?i?r? ?tfe\b|quick ?3d"
)
_T2: Final = r"(?<!effor)t2(?! ?(?:\*|star))"
_T1_USUALLY: Final = r"\bflash\b|\bstealth|\bmpr\b"
_T2_USUALLY: Final = r"\bhaste\b|ssfse|ss tse|\bdrive\b|frfse|\biso ?fse\b"
_FLAIR: Final = r"flair|dark ?fl|\bda ?fl\b|fluid att|fluid sup"
_FLAIR_OR_STIR: Final = r"\btirm?\b"
_REPEAT: Final = (
    r"\brepeat|\brpt\b|\bwdh|wiederh|\bagain\b|\bripet|\brepet|\bherhal|\bredo\b|\bretake"
    r"|\b(?:2nd|second) (?:try|attempt)"
)
_STUDY: Final = (  # what was ordered or why, not what this series is
    r"with (?:and|or|&)? ?without|without (?:and|or)? ?with|\bw ?(?:\+|and|a|&)? ?wo\b|\bwo ?w\b"
    r"|\bw w o\b|\bw ?o (?:and |\+ )?w\b|\bw ?\+ ?w o\b|\bwo with\b|\bwow\b|\bwwo\b"
    r"|\bw (?:and )?w o\b|\bmit (?:und|u) ohne\b|\bohne (?:und|u) mit\b|brain with\b|brain wo\b"
    r"|\bavec et sans\b|\bsans et avec\b|\bcon (?:y|e) (?:sin|senza)\b|\bsin y con\b"
    r"|\bsenza e con\b|\bmet en zonder\b|\bsem e com\b|\bcom e sem\b"
    r"|\bpre ?(?:and|und|et|e|y|en|\+)? ?post\b"
    r"|\+ ?plusminus\w*(?: ?(?:c|gd|gad|km|mdc)\b)?"
    r"|(?:\b|(?<=[a-z]))(?:post|pre) ?(?:op(?:erat\w*)?|surg\w*|r ?x|rt|radio\w*|therap\w*"
    r"|treat\w*|biops\w*|ictal|trauma\w*|stroke|proc\w*)(?![a-z])|\bpost (?:fossa|limb)"
    r"|postop"
)
_BEFORE: Final = (
    r"\bpre(?!ss|p|s|c|d|v|m)|\bw ?o\b|without|\bnon? ?(?:contrast|gd|gad|enh|km|c\b|inj|iv)"
    r"|nativ|\bsans\b|\bohne\b|\bsenza\b|\bsin\b|\bsem\b|unenhanced|\bbez\b|\bvor ?(?:km|kontr)"
    r"|\bzonder\b|\butan\b|\bavant\b|\bbasale?\b|\bantes\b|\bvoor (?:contr|gd|gad)|\bnoncon"
    r"|precontr|pre ?(?:gad|gd\b|km|ce?\b|cm\b|m ?d ?c|inj|kontr)"
    r"|\bnat\b|\b[ov] ?km\b|\bblanco\b|\bplain\b|\bss? (?:inj|cte|contr|gad|gd|km|mdc)|noncontrast"
)
_AFTER: Final = (
    r"\bpost(?!er)|post\b|gd\b|\bgd|\bgad|gad\b|gado|\+ ?c\b|\bc ?\+|\+ ?$|km\b|\bkm|\bcontrast"
    r"|kontrast|contraste|mdc\b|\bm d c\b|\bce\b|\bcte\b|\+ ?ct\w?\b|\bcontr\b|\benh\b"
    r"|t1 ?w? ?ce\b|t1 ?w? ?c\b|\bc t1"
    r"|t1 (?:\w+ )*c\b|corc\b|\binj|\bavec\b|\bnach\b|(?<!un)enhanced|\bdota|\bpo kontr|\bmed k\b"
    r"|\bapres\b|\bdopo\b|\bapos\b|\bdepois\b|\bdespues\b|\bpos (?:contr|gd|gad)|\bciv\b|\bw ?con\b"
    r"|\bna (?:contr|gd|gad)|prohance|magnevist|multihance|omniscan|clariscan|\bmit km"
    r"|vueway|elucirem"
    r"|t1 ?w? ?gd|\bcm\b|\bc ?m\b(?= ?$)|\bpos$|\bwith$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the names of a series say.

    Parameters
    ----------
    foreign : str
        A kind of series that serves no role, '' for none.
    is_firm : bool
        The word for that kind means nothing else.
    weighting : str
        ``FLAIR``, ``T1``, ``T2``, ``T2*``, ``PD``, or '' where the names do not say.
    hints : mapping of str to float
        Weightings that are only usual for a word, and how much it counts.
    contrast : str
        ``before`` or ``after`` contrast agent, or ''.
    is_repeat : bool
        Named a repeat of another series.
    """

    foreign: str = ""
    is_firm: bool = False
    weighting: str = ""
    hints: Mapping[str, float]
    contrast: str = ""
    is_repeat: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether nothing is said of the kind of the series."""
        return not (self.foreign or self.weighting or self.hints)


def read(text: str) -> Words:
    """Return what free text says about a series."""
    own = re.sub(_STUDY, " ", _plain(text))
    firm = _first(_FIRM, own)
    return Words(
        foreign=firm or _first(_LOOSE, own),
        is_firm=bool(firm),
        weighting=_weighting(own),
        hints=_hints(own),
        contrast=_contrast(own),
        is_repeat=bool(re.search(_REPEAT, own)),
    )


def _first(table: Table, plain: str) -> str:
    return next((kind for kind, words in table if re.search(words, plain)), "")


def _plain(text: str) -> str:
    """Return lower-case words without accents, parted by single blanks.

    A minus with the C of an agent is kept as a word, and what Philips puts before and behind a name
    is left out.
    """
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(one for one in decomposed if not unicodedata.combining(one)).lower()
    bare = re.sub(r"\+ ?/ ?-", "+plusminus ", bare)
    bare = re.sub(r"(?<![a-z0-9])c-(?![a-z0-9])|(?<=[ _(])-c(?![a-z0-9])", " noncontrast ", bare)
    plain = re.sub(r"[^a-z0-9*+]+", " ", bare).strip()
    return re.sub(r"^wip ?(?=.)|(?<=.) ?(?:sense|clear)$", "", plain)


def _weighting(plain: str) -> str:
    has_t1, has_t2 = _has_t1(plain), bool(re.search(_T2, plain))
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


def _has_t1(plain: str) -> bool:
    if re.search(_T1, plain):
        return True
    return bool(re.search(_T1_TECHNIQUE, plain)) and not re.search(_PROTON, plain)


def _hints(plain: str) -> dict[str, float]:
    hints: dict[str, float] = {}
    if re.search(_FLAIR_OR_STIR, plain):
        hints["FLAIR"] = 1.5
    if re.search(_T1_USUALLY, plain):
        hints["T1"] = 1.0
    if re.search(_T2_USUALLY, plain):
        hints["T2"] = 1.5
    if re.search(_PROTON, plain) and re.search(_T2, plain):  # both echoes under one name
        hints["PD"] = 2.5
    return hints


def _contrast(plain: str) -> str:
    if re.search(_BEFORE, plain):
        return "before"
    return "after" if re.search(_AFTER, plain) else ""
