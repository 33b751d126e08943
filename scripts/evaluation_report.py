"""The figures of an evaluation as tables of Markdown, ready for the model card."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scripts.evaluation_cost import Cost
from scripts.evaluation_runs import Result
from scripts.evaluation_studies import EXPERT
from scripts.segmentation_scores import REGIONS

ROLE_NAMES: Final = {"": "none", "flair": "FLAIR", "t1": "T1w", "t1gd": "T1gd", "t2": "T2w"}
KIND_NAMES: Final = {
    "stripped": "stripped",
    "head": "whole head",
    "thick": "whole head, thick slices",
    "healthy": "healthy",
    "native": "raw, whole head",
}

GENERATED_DICE: Final = {"WT": 0.90, "TC": 0.80, "ET": 0.80}
REAL_DICE: Final = {"WT": 0.80, "TC": 0.65, "ET": 0.60}
MOST_HEALTHY_ML: Final = 1.0
LEAST_HEALTHY_SHARE: Final = 0.90
MOST_SECONDS: Final = 30.0
MOST_GIB: Final = 1.5

_BUSY: Final = 0.5
_COSTING: Final = (
    "Each in a process of its own, registration included. Load before: how many other processes "
    f"wanted a processor; above {_BUSY} the seconds say little, CPU seconds say more."
)
_READING: Final = (
    "Dice and HD95 (mm) of whole tumour (WT), tumour core (TC) and enhancing tumour (ET); "
    "lesion-wise measures as in BraTS 2023; what was refused counts as nothing found."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that was measured.

    Parameters
    ----------
    facts : mapping of str to str
        Model, weights, date, seeds, generator, processor; printed as they are.
    results : tuple of Result
        One per study and missing sequence.
    costs : tuple of Cost
        What whole studies cost.
    """

    facts: dict[str, str]
    results: tuple[Result, ...]
    costs: tuple[Cost, ...]


def markdown(figures: Figures) -> str:
    """Return the report."""
    results = figures.results
    complete = [one for one in results if not one.missing]
    tumour = [one for one in complete if one.kind != "healthy" and one.family != "real"]
    parts = [
        "# Evaluation of the demonstration model",
        "Research use only. " + " ".join(f"{key}: {text}." for key, text in figures.facts.items()),
        _READING,
        _section("Targets", _targets(figures)),
        _section("Generated studies and phantoms", _by_group(tumour)),
        _section("Real exams", _real(complete)),
        _section("One sequence missing: mean Dice", _missing(results)),
        _section("Healthy brains", _healthy(complete)),
        _section("Cost of a whole study", _cost(figures.costs)),
        _section("Refusals and notes", _said(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body or 'Not measured.'}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) if len(lines) > len(("head", "rule")) else ""


def _targets(figures: Figures) -> str:
    complete = [one for one in figures.results if not one.missing]
    drawn = [one for one in complete if one.family == "generated"]
    healthy = [one for one in drawn if one.kind == "healthy"]
    generated = [one for one in drawn if one.kind != "healthy"]
    experts = [one for one in complete if one.reference_kind == EXPERT]
    rows = [
        *_dice_rows("generated studies, mean", generated, GENERATED_DICE, statistics.fmean),
        *_dice_rows("real exams with expert labels, median", experts, REAL_DICE, statistics.median),
        *_healthy_row(healthy),
        *_cost_rows(figures.costs),
    ]
    return _table(("target", "wanted", "measured", "of", ""), rows)


def _dice_rows(
    title: str,
    results: Sequence[Result],
    wanted: dict[str, float],
    average: Callable[[list[float]], float],
) -> list[list[str]]:
    if not results:
        return [[title, "", "not measured", "0", ""]]
    rows = []
    for region, least in wanted.items():
        value = average([one.scores[region].dice for one in results])
        verdict = _verdict(is_reached=value >= least)
        rows.append(
            [f"{title} Dice {region}", f"≥ {least:.2f}", f"{value:.3f}", str(len(results)), verdict]
        )
    return rows


def _healthy_row(results: Sequence[Result]) -> list[list[str]]:
    title = f"healthy: at most {MOST_HEALTHY_ML:.0f} mL found"
    wanted = f"≥ {100 * LEAST_HEALTHY_SHARE:.0f} %"
    if not results:
        return [[title, wanted, "not measured", "0", ""]]
    share = statistics.fmean(
        not one.refusal and one.found_ml["WT"] <= MOST_HEALTHY_ML for one in results
    )
    verdict = _verdict(is_reached=share >= LEAST_HEALTHY_SHARE)
    return [[title, wanted, f"{100 * share:.0f} %", str(len(results)), verdict]]


def _cost_rows(costs: Sequence[Cost]) -> list[list[str]]:
    if not costs:
        return [["whole study", "", "not measured", "0", ""]]
    slowest, largest = max(one.total_s for one in costs), max(one.peak_gib for one in costs)
    is_quick, is_small = slowest <= MOST_SECONDS, largest <= MOST_GIB
    busy = "; machine busy" if max(one.load_average for one in costs) > _BUSY else ""
    seconds = ["slowest whole study", f"≤ {MOST_SECONDS:.0f} s", f"{slowest:.1f} s{busy}"]
    memory = ["peak memory of a whole study", f"≤ {MOST_GIB} GiB", f"{largest:.2f} GiB"]
    return [
        [*seconds, str(len(costs)), _verdict(is_reached=is_quick)],
        [*memory, str(len(costs)), _verdict(is_reached=is_small)],
    ]


def _verdict(*, is_reached: bool) -> str:
    return "reached" if is_reached else "**missed**"


def _by_group(results: Sequence[Result]) -> str:
    head = ("studies", "n", "region", "Dice mean", "median", "lowest", "HD95 median")
    lesions = ("lesion Dice mean", "lesion HD95 mean", "lesions", "missed", "false")
    rows = []
    for family, kind in dict.fromkeys((one.family, one.kind) for one in results):
        group = [one for one in results if (one.family, one.kind) == (family, kind)]
        rows += [
            [f"{family}, {KIND_NAMES[kind]}", str(len(group)), region, *_summary(group, region)]
            for region in REGIONS
        ]
    return _table((*head, *lesions), rows)


def _summary(group: Sequence[Result], region: str) -> list[str]:
    scores = [one.scores[region] for one in group]
    dices = [one.dice for one in scores]
    return [
        f"{statistics.fmean(dices):.3f}",
        f"{statistics.median(dices):.3f}",
        f"{min(dices):.3f}",
        f"{statistics.median(one.hd95_mm for one in scores):.1f}",
        f"{statistics.fmean(one.lesions.dice for one in scores):.3f}",
        f"{statistics.fmean(one.lesions.hd95_mm for one in scores):.1f}",
        str(sum(one.lesions.lesion_count for one in scores)),
        str(sum(one.lesions.missed_count for one in scores)),
        str(sum(one.lesions.false_count for one in scores)),
    ]


def _real(complete: Sequence[Result]) -> str:
    exams = [one for one in complete if one.family == "real"]
    rows = []
    for exam in exams:
        for region in REGIONS:
            rows.append([exam.study, KIND_NAMES[exam.kind], exam.reference_kind or "none", region])
            rows[-1] += _exam_cells(exam, region)
    scored = [one for one in exams if one.scores]
    for region in REGIONS if scored else ():
        median = statistics.median(one.scores[region].dice for one in scored)
        row = [f"median of {len(scored)}", "", "any", region, f"{median:.3f}", *([""] * 5)]
        rows.append(row)
    head = ("exam", "kind", "reference", "region", "Dice", "HD95")
    return _table((*head, "lesion Dice", "missed / false", "mL found", "mL in reference"), rows)


def _exam_cells(exam: Result, region: str) -> list[str]:
    found_ml = f"{exam.found_ml[region]:.1f}"
    if region not in exam.scores:
        return ["not scored", "", "", "", found_ml, ""]
    one = exam.scores[region]
    return [
        f"{one.dice:.3f}",
        f"{one.hd95_mm:.1f}",
        f"{one.lesions.dice:.3f}",
        f"{one.lesions.missed_count} / {one.lesions.false_count}",
        found_ml,
        f"{one.reference_ml:.1f}",
    ]


def _missing(results: Sequence[Result]) -> str:
    """Return the table of missing sequences, against the same studies with all of them."""
    lacking = [one for one in results if one.missing]
    studies = {one.study for one in lacking}
    rows = []
    for family, kind in dict.fromkeys((one.family, one.kind) for one in lacking):
        group = [
            one
            for one in results
            if (one.family, one.kind) == (family, kind) and one.study in studies
        ]
        for role, name in ROLE_NAMES.items():
            here = [one for one in group if one.missing == role]
            if here:
                dices = [
                    f"{statistics.fmean(one.scores[region].dice for one in here):.3f}"
                    for region in REGIONS
                ]
                refused = str(sum(bool(one.refusal) for one in here))
                title = f"{family}, {KIND_NAMES[kind]}"
                rows.append([title, name, str(len(here)), *dices, refused])
    return _table(("studies", "missing", "n", *REGIONS, "refused"), rows)


def _healthy(complete: Sequence[Result]) -> str:
    rows = [
        [one.study, f"{one.found_ml['WT']:.2f}", f"{one.found_ml['TC']:.2f}"]
        for one in complete
        if one.kind == "healthy"
    ]
    return _table(("study", "mL of whole tumour found", "of that core"), rows)


def _cost(costs: Sequence[Cost]) -> str:
    head = ("study", "voxels of T1gd", "load s", "read s", "register s", "predict s", "sum s")
    rows = [
        [one.study, one.voxels]
        + [f"{part:.1f}" for part in (one.load_s, one.read_s, one.register_s, one.predict_s)]
        + [f"{one.total_s:.1f}", f"{one.cpu_s:.1f}", f"{one.peak_gib:.2f}"]
        + [f"{one.load_average:.1f}"]
        for one in costs
    ]
    table = _table((*head, "CPU s", "peak GiB", "load before"), rows)
    return f"{table}\n\n{_COSTING}" if rows else ""


def _said(results: Sequence[Result]) -> str:
    rows = [
        [one.study, ROLE_NAMES[one.missing], text]
        for one in results
        for text in ((one.refusal, *one.notes) if one.refusal else one.notes)
        if not (one.missing and text.startswith("INPUT_MISSING"))
    ]
    return _table(("study", "missing", "what the engine said"), rows) or "None."
