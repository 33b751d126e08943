"""Series are taken for what they are, on the corpus of the repository and on those beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bench_sequences

LEAST_ACCURACY = 0.98
LEAST_COVERAGE = 0.85


@pytest.mark.parametrize("path", bench_sequences.corpora(), ids=lambda path: path.stem)
def test_a_corpus_is_classified_without_a_confident_error(path: Path) -> None:
    found = bench_sequences.answers(bench_sequences.rows_of(path))
    assert bench_sequences.accuracy(found) >= LEAST_ACCURACY
    assert bench_sequences.confident_errors(found) == []
    assert bench_sequences.coverage(found) >= LEAST_COVERAGE


def test_the_baseline_of_words_is_worse() -> None:
    found = bench_sequences.answers(bench_sequences.rows_of(bench_sequences.corpora()[0]))
    said = [
        bench_sequences.baseline(str(one.row["attributes"].get("SeriesDescription", "")))
        for one in found
    ]
    right = sum(one.label == word for one, word in zip(found, said, strict=True))
    assert right / len(found) < bench_sequences.accuracy(found) - 0.1


def test_names_alone_agree_with_real_labels(realdata: Path) -> None:
    found = bench_sequences.tsv_answers(realdata / "seqtype" / "descriptions_dev.tsv")
    assert bench_sequences.accuracy(found) >= LEAST_ACCURACY
