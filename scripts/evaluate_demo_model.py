"""Measure the demonstration model on studies that it was not trained on.

    python -m scripts.evaluate_demo_model --quick
    python -m scripts.evaluate_demo_model --count 20 --record      (make eval-demo)

Runs the real engine, brain mask included, on held-out generated studies, on phantoms, on the same
with one sequence missing, and on the real exams of the test data, and measures what a whole study
costs. Writes figures.md (tables for the model card), figures.json (every number) and one picture of
each kind of study and of each real exam.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from converters.errors import ConversionError
from converters.volume import Role
from scripts import (
    evaluation_cost,
    evaluation_pictures,
    evaluation_report,
    evaluation_studies,
    generated_studies,
)
from scripts.evaluation_cost import Cost
from scripts.evaluation_pictures import Subject, Words
from scripts.evaluation_report import KIND_NAMES, ROLE_NAMES, Figures
from scripts.evaluation_runs import Engine, Outcome, Result, registered
from scripts.evaluation_studies import (
    FIRST_SEED,
    FUSED,
    PHANTOM_KINDS,
    Family,
    Study,
)
from scripts.segmentation_scores import REGIONS

_MODELS: Final = Path("models")
_LOOKED_AT: Final = "LOOKED_AT.md"
_LOOKED_AT_HEAD: Final = """# Real exams that this model was measured on

One line for each look, so that nobody mistakes an exam for an unseen one. No exam is trained on or
used to choose anything.

| date | version | weights | exam | reference | WT | TC | ET |
|---|---|---|---|---|---|---|---|
"""
_QUICK: Final = 1
_INPUTS: Final = ("flair", "t1", "t1gd", "t2")
_LACKING_KINDS: Final = ("stripped", "head")
_COSTED_KINDS: Final = ("stripped", "head", "thick", "native")
_TITLES: Final = {"generated": "Generated study", "phantom": "Phantom", "real": "Real exam"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A study that is to be drawn, and which inputs are kept from the model, one after another."""

    family: Family
    kind: str
    seed: int
    missing: tuple[Role, ...]


def main() -> None:
    """Read the command line, measure and write."""
    options = _options()
    started = time.monotonic()
    os.nice(options.nice)
    engine = Engine(options.model, options.mask, threads=options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    evaluation = _Evaluation(engine, options)
    evaluation.run()
    if options.record:
        record(options.model / _LOOKED_AT, evaluation.figures)
    print(evaluation_report.markdown(evaluation.figures))
    print(f"{options.out}/figures.md after {time.monotonic() - started:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    kinds = (*generated_studies.KINDS, "phantom")
    add("--out", type=Path, default=Path("var/eval-demo"), help="folder to write (%(default)s)")
    add("--model", type=Path, default=_MODELS / "demo-glioma", help="folder (%(default)s)")
    add("--mask", type=Path, default=_MODELS / "brain-mask", help="brain mask (%(default)s)")
    add("--kinds", nargs="+", choices=kinds, default=kinds, help="what to draw (all)")
    add("--count", type=int, default=10, help="studies of each kind (%(default)s)")
    add("--seeds", type=int, nargs="+", help="these seeds instead; they must be held out")
    add("--phantoms", type=int, default=3, help="phantoms of each kind (%(default)s)")
    add("--missing", type=int, default=4, help="studies to run without each input (%(default)s)")
    add("--quick", action="store_true", help="one study of each kind and of each missing input")
    add("--real-off", action="store_true", help="leave the real exams alone")
    add("--cost-off", action="store_true", help="do not measure seconds and memory")
    add("--record", action="store_true", help=f"note the real exams in the model's {_LOOKED_AT}")
    add("--threads", type=int, default=2, help="of the engine (%(default)s)")
    add("--nice", type=int, default=0, help="lower priority, 0 to 19 (%(default)s)")
    options = parser.parse_args()
    if options.quick:
        options.count, options.phantoms, options.missing = _QUICK, _QUICK, _QUICK
    options.seeds = options.seeds or list(range(FIRST_SEED, FIRST_SEED + options.count))
    return options


class _Evaluation:
    """The runs in order, and what came of them."""

    def __init__(self, engine: Engine, options: argparse.Namespace) -> None:
        self.engine, self.options = engine, options
        self._facts = _facts(engine, options)
        self.results: list[Result] = []
        self.costs: list[Cost] = []
        self._pictured: set[str] = set()
        self._began = time.monotonic()

    def run(self) -> None:
        """Do all runs."""
        plans = _plans(self.options)
        for number, plan in enumerate(plans, start=1):
            study = _drawn(plan)
            for missing in ("", *plan.missing):
                self._one(study, missing, f"study {number} of {len(plans)}")
            self._write()
        if not self.options.real_off:
            self._real()

    @property
    def figures(self) -> Figures:
        """What was measured so far."""
        return Figures(facts=self._facts, results=tuple(self.results), costs=tuple(self.costs))

    def _write(self) -> None:
        """Write the figures; after each study, so that a run that is cut short leaves its own."""
        out, figures = self.options.out, self.figures
        (out / "figures.md").write_text(evaluation_report.markdown(figures), encoding="utf-8")
        content = json.dumps(asdict(figures), indent=1, ensure_ascii=False)
        (out / "figures.json").write_text(content + "\n", encoding="utf-8")

    def _real(self) -> None:
        folder = evaluation_studies.real_data_folder()
        exams = list(evaluation_studies.real_exams(folder))
        if not exams:
            print("no real exams: set NEUROSEG_REALDATA to the folder of the test data")
        for number, exam in enumerate(exams, start=1):
            self._one(exam, "", f"real exam {number} of {len(exams)}")
            self._write()

    def _one(self, study: Study, missing: Role, place: str) -> None:
        moved = study
        if study.is_to_register:
            try:
                moved = replace(study, volumes=registered(study.volumes))
            except ConversionError as error:
                print(f"{place}: {study.name} not registered, run as it lies: {error}", flush=True)
        outcome = self.engine.run(moved, missing=missing)
        self.results.append(outcome.result)
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        without = f" without {ROLE_NAMES[missing]}" if missing else ""
        print(
            f"{minutes:3d}:{seconds:02d}  {place}: {study.name}{without}: "
            f"{_said(outcome.result)} ({outcome.result.seconds:.1f} s)",
            flush=True,
        )
        picture = study.name if study.family == "real" else f"{study.family}-{study.kind}"
        if missing or picture in self._pictured:
            return
        self._pictured.add(picture)
        page = evaluation_pictures.draw(*_pictured(moved, outcome, self.engine))
        page.save(self.options.out / f"{picture}.png", optimize=True)
        if not self.options.cost_off and study.kind in _COSTED_KINDS:
            self._cost(study)

    def _cost(self, study: Study) -> None:
        cost = evaluation_cost.measure(
            study, self.options.model, self.options.mask, threads=self.options.threads
        )
        self.costs.append(cost)
        print(f"        cost: {cost.total_s:.1f} s, {cost.peak_gib:.2f} GiB", flush=True)


def _plans(options: argparse.Namespace) -> list[_Plan]:
    """Return the studies to draw; phantoms lack inputs only where nothing better is drawn."""
    kinds = [kind for kind in options.kinds if kind != "phantom"]
    wanted: list[tuple[Family, str, int, bool]] = [
        ("generated", kind, seed, number < options.missing)
        for kind in kinds
        for number, seed in enumerate(options.seeds)
    ]
    if "phantom" in options.kinds:
        wanted += [
            ("phantom", kind, FIRST_SEED + number, number < options.missing and not kinds)
            for kind in PHANTOM_KINDS
            for number in range(options.phantoms)
        ]
    return [
        _Plan(
            family=family,
            kind=kind,
            seed=seed,
            missing=_INPUTS if lacks and kind in _LACKING_KINDS else (),
        )
        for family, kind, seed, lacks in wanted
    ]


def _drawn(plan: _Plan) -> Study:
    if plan.family == "phantom":
        return evaluation_studies.phantom_study(plan.kind, plan.seed)
    return evaluation_studies.generated(plan.kind, plan.seed)


def _said(result: Result) -> str:
    """Return a result in a few words."""
    if result.refusal:
        return f"refused, {result.refusal}"
    if not result.scores or result.kind == "healthy":
        return f"{result.found_ml['WT']:.1f} mL found"
    return "Dice " + "  ".join(f"{name} {one.dice:.2f}" for name, one in result.scores.items())


def _pictured(study: Study, outcome: Outcome, engine: Engine) -> tuple[Subject, Words]:
    """Return what a page of a study shows and says."""
    result, declared = outcome.result, engine.manifest
    title = f"{_TITLES[study.family]}, {KIND_NAMES[study.kind]}"
    title += f", seed {study.seed}" if study.seed is not None else f": {study.name}"
    figures = _said(result)
    if result.scores and not result.refusal and study.kind != "healthy":
        far = "  ".join(f"{name} {result.scores[name].hd95_mm:.1f}" for name in REGIONS)
        figures += f"      HD95 mm  {far}"
    if study.reference_kind == FUSED:
        figures += "      against the fusion of five models"
    sha256 = declared.weights_sha256
    notes = [f"{declared.id} {declared.version}, weights {sha256[:12]}"]
    if study.attribution:
        notes[0] += f"; images: {study.attribution}"
    notes += [f"Reference: {study.reference_kind or 'none'}"]
    subject = Subject(
        volumes=study.volumes,
        grid=study.grid,
        found=outcome.found,
        reference=study.reference,
        reference_title=_reference_title(study),
        segments=declared.segments,
    )
    return subject, Words(title=title, figures=figures, notes=tuple(notes))


def _reference_title(study: Study) -> str:
    if study.reference is None:
        return "no reference"
    if study.kind == "healthy":
        return "reference (no tumour)"
    return "five models" if study.reference_kind == FUSED else "reference"


def _facts(engine: Engine, options: argparse.Namespace) -> dict[str, str]:
    declared, seeds = engine.manifest, options.seeds
    is_row = seeds == list(range(seeds[0], seeds[-1] + 1))
    return {
        "Model": f"{declared.id} {declared.version}",
        "Weights": declared.weights_sha256,
        "Date": datetime.now(UTC).date().isoformat(),
        "Seeds": f"{seeds[0]} to {seeds[-1]}" if is_row else ", ".join(map(str, seeds)),
        "Generator": generated_studies.VERSION,
        "Processor": f"{evaluation_cost.processor()}; {options.threads} threads",
    }


def record(path: Path, figures: Figures) -> None:
    """Add one line for each real exam to a file, which is made where it is absent."""
    content = path.read_text(encoding="utf-8") if path.is_file() else _LOOKED_AT_HEAD
    facts = figures.facts
    look = [facts["Date"], facts["Model"].split()[-1], facts["Weights"][:12]]
    for one in figures.results:
        if one.family == "real":
            dices = [
                f"{one.scores[name].dice:.3f}" if one.scores else "not scored" for name in REGIONS
            ]
            cells = [*look, one.study, one.reference_kind or "none", *dices]
            content += f"| {' | '.join(cells)} |\n"
    path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
