"""How often series are taken for what they are.

Run by hand: ``python -m tests.bench.bench_sequences [FILE ...]``. Read are ``tests/corpus``, every
corpus in the folder ``seqtype`` of the real data and the files given, each study judged as a whole;
then the description strings of the real data one by one. Beside it stands what a site would write
with words of Series Description alone. An error is confident where the wrong role scores at least
the acceptance score; coverage is the share of the series with a role that are right and score so
much.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from converters.sequences import ACCEPTANCE_SCORE, Candidate, evidence_of, judge
from tests import peers

CORPUS: Final = Path(__file__).parents[1] / "corpus"
LABELS: Final = ("FLAIR", "T1w", "T1gd", "T2w", "other")
_TSV_LABELS: Final = {"FLAIR": "FLAIR", "T1": "T1w", "T1GD": "T1gd", "T2": "T2w", "OTHER": "other"}
# Names whose label in the table is another than ours would be (tests/corpus/README.md): parts of
# Dixon, computed images, maps, T2*, functional runs that are called T1 there, FLAIR called T2.
_OURS: Final = (
    (r"_(?:opp|f)(?:_|$)|_mip|_mpr_|_sub$|recon |t1map|b1map", "other"),
    (r"^sms\d|^epi_|(?:left|right)1$|hemo|t2wffe|grefil|_stir_|hippocampus", "other"),
    (r"t2.*(?:dark-fluid|da-fl)", "FLAIR"),
)
_BASELINE: Final = (
    ((r"loc|scout|survey|calib|diff|dwi|dti|adc|trace|perf|dsc|dce|asl|bold|fmri|rest|ep2d|epi"
      r"|swi|swan|tof|angio|mra|mrv|field|map|sub|mip|mpr|stir|spine|ciss|fiesta"), "other"),
    (r"flair|dark.?fl|tirm", "FLAIR"),
    (r"t2\*|t2.?star|gre|hemo|medic", "other"),
    (r"(?:t1|mprage|bravo|spgr|vibe|tfe).*(?:post|gd|gad|\+c|km|contrast|\bce?\b)", "T1gd"),
    (r"(?:post|gd|gad|\+c|km|contrast|ce|\bc).*(?:t1|mprage|bravo|spgr|vibe)", "T1gd"),
    (r"t1|mprage|bravo|spgr|vibe|tfe", "T1w"),
    (r"t2", "T2w"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One series: what it is, what it was taken for, how surely."""

    row: Mapping[str, Any]
    label: str
    found: str
    sequence: str
    score: float


def baseline(description: str) -> str:
    """Return what the words of a description say, as sites sort their series."""
    plain = description.lower().replace("_", " ")
    return next((label for words, label in _BASELINE if re.search(words, plain)), "other")


def header_of(attributes: Mapping[str, Any]) -> Dataset:
    """Return the attributes of a row as a header, values as they are found in the wild."""
    ds = Dataset()
    for keyword, value in attributes.items():
        kind = dictionary_VR(keyword)
        many = [header_of(one) for one in value] if kind == "SQ" else value
        ds.add(DataElement(keyword, kind, many, validation_mode=config.IGNORE))
    return ds


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the series of a corpus."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def corpora(more: Iterable[Path] = ()) -> list[Path]:
    """Return the corpora of the repository, those beside the real data, and more."""
    folder = peers.real_data_folder()
    beside = [] if folder is None else sorted((folder / "seqtype").glob("*.jsonl"))
    return [*sorted(CORPUS.glob("*.jsonl")), *beside, *more]


def answers(rows: Iterable[Mapping[str, Any]]) -> list[Answer]:
    """Return what each series is taken for in its study."""
    studies: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        studies.setdefault(row["study"], []).append(row)
    found: list[Answer] = []
    for many in studies.values():
        candidates = [
            Candidate(
                series_instance_uid=str(index),
                evidence=evidence_of(header_of(row["attributes"])),
                slice_count=row["slice_count"] or 0,
                is_whole=True,
            )
            for index, row in enumerate(many)
        ]
        for row, judged in zip(many, judge(candidates), strict=True):
            sequence = judged.found.sequence
            found.append(
                Answer(
                    row=row,
                    label=row["label"],
                    found=sequence if judged.found.role else "other",
                    sequence=sequence,
                    score=judged.found.score,
                )
            )
    return found


def tsv_answers(path: Path) -> list[Answer]:
    """Return what the names of the real data are taken for, each one by itself."""
    found: list[Answer] = []
    with path.open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            attributes = {"Modality": "MR", "SeriesDescription": row["description"]}
            made = {"study": "", "attributes": attributes, "slice_count": 20}
            label = _TSV_LABELS[row["type"]]
            (one,) = answers([{**made, "label": _ours(label, row["description"])}])
            found += [one] * int(row["n_series"])
    return found


def _ours(label: str, description: str) -> str:
    """Return the label of a description as the corpora would have it."""
    if label not in {"T1w", "T2w"}:
        return label
    return next((ours for words, ours in _OURS if re.search(words, description.lower())), label)


def accuracy(many: Sequence[Answer]) -> float:
    """Return the share of series that were taken for what they are."""
    return sum(one.label == one.found for one in many) / len(many)


def confident_errors(many: Iterable[Answer]) -> list[Answer]:
    """Return the series that would serve a role that is not theirs."""
    return [
        one
        for one in many
        if one.found not in {"other", one.label} and one.score >= ACCEPTANCE_SCORE
    ]


def coverage(many: Iterable[Answer]) -> float:
    """Return the share of the series with a role that are certain enough to serve it."""
    serving = [one for one in many if one.label != "other"]
    sure = sum(one.label == one.found and one.score >= ACCEPTANCE_SCORE for one in serving)
    return sure / len(serving)


def _figures(name: str, many: Sequence[Answer]) -> str:
    said = [baseline(str(one.row["attributes"].get("SeriesDescription", ""))) for one in many]
    wrong = sum(word not in {"other", one.label} for one, word in zip(many, said, strict=True))
    base = sum(one.label == word for one, word in zip(many, said, strict=True)) / len(many)
    return (
        f"{name:<24}{len(many):6d} series   accuracy {accuracy(many):7.2%} ({base:7.2%})   "
        f"confident errors {len(confident_errors(many)):3d} ({wrong:3d})   "
        f"coverage {coverage(many):7.2%}\n"
    )


def report(name: str, many: Sequence[Answer]) -> str:
    """Return the figures of one set in words; in brackets those of the description alone."""
    parts = {"all": many, "without the hard ones": [one for one in many if not one.row.get("hard")]}
    lines = [f"{name}\n", *(_figures(part, some) for part, some in parts.items() if some)]
    lines.append("".join(f"{word:>12}" for word in ("is / found", *LABELS)) + "\n")
    table = Counter((one.label, one.found) for one in many)
    lines += [
        f"{label:>12}" + "".join(f"{table[label, one]:12d}" for one in LABELS) + "\n"
        for label in LABELS
    ]
    return "".join(lines)


def main() -> None:
    """Print the figures."""
    begun = time.perf_counter()
    sets = {path.stem: answers(rows_of(path)) for path in corpora(map(Path, sys.argv[1:]))}
    each_ms = (time.perf_counter() - begun) / sum(map(len, sets.values())) * 1e3
    folder = peers.real_data_folder()
    if folder is not None:
        sets["names alone"] = tsv_answers(folder / "seqtype" / "descriptions_dev.tsv")
    for name, many in sets.items():
        sys.stdout.write(f"{report(name, many)}\n")
    sys.stdout.write(f"{each_ms:.2f} ms per series, header to classification\n")


if __name__ == "__main__":
    main()
