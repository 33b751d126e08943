"""What is said of a result that is unusual, and that nothing is said of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.volume import Grid, LabelMap
from inference import manifest, quality
from inference.declarations import Quality
from inference.note_codes import NOTE_CODES
from inference.quality import Note, Uncertainty

DEMO = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
GRID = Grid(shape=(40, 60, 60), index_to_lps_mm=np.diag([2.0, 2, 2, 1]), frame_of_reference_uid="")


def map_of(*boxes: tuple[int, slice]) -> LabelMap:
    labels = np.zeros(GRID.shape, np.uint8)
    for number, span in boxes:
        labels[span, 20:40, 20:40] = number
    return LabelMap(labels=labels, grid=GRID, segments=DEMO.segments, model_id=DEMO.model_id)


def judged(
    labels: LabelMap,
    limits: Quality | None = None,
    *,
    brain_ml: float | None = 1300.0,
    share_outside: float = 0.0,
    is_clipped: bool = False,
    unsure: Uncertainty | None = None,
) -> Sequence[Note]:
    return quality.judge(
        labels,
        limits or Quality(),
        brain_ml=brain_ml,
        share_outside=share_outside,
        is_clipped=is_clipped,
        unsure=unsure,
    )


TUMOUR = map_of((1, slice(10, 20)), (3, slice(12, 15)))  # 32 mL
NOTHING = map_of()


def test_a_usual_result_has_no_note() -> None:
    for labels in (TUMOUR, NOTHING):
        assert list(judged(labels)) == []


@pytest.mark.parametrize(
    ("limits", "brain_ml", "said"),
    [
        (Quality(largest_tumour_ml=31.0), None, "32 mL are labelled, expected at most 31 mL"),
        (Quality(), 100.0, "32% of the brain are labelled, expected at most 30%"),
    ],
)
def test_too_much_tumour_is_said(limits: Quality, brain_ml: float | None, said: str) -> None:
    (note,) = judged(TUMOUR, limits, brain_ml=brain_ml)
    assert (note.code, note.sentence) == ("TUMOUR_LARGE", said)


def test_scattered_labels_are_said_specks_are_not_counted() -> None:
    pieces = map_of(*((1, slice(start, start + 1)) for start in range(0, 14, 2)))
    (note,) = judged(pieces)
    assert note.code == "TUMOUR_SCATTERED"
    assert note.sentence.startswith("7 separate pieces")
    specks = np.zeros(GRID.shape, np.uint8)
    specks[::4, ::10, ::10] = 1
    one = LabelMap(labels=specks, grid=GRID, segments=DEMO.segments, model_id=DEMO.model_id)
    assert list(judged(one)) == []


def test_labels_outside_the_brain_are_said() -> None:
    (left,) = judged(TUMOUR, share_outside=0.24)
    (removed,) = judged(TUMOUR, share_outside=0.24, is_clipped=True)
    assert left.code == removed.code == "TUMOUR_OUTSIDE_BRAIN"
    assert left.sentence == "24% of what was found lie outside the brain, expected at most 10%"
    assert "outside the brain and were removed, expected" in removed.sentence


def entropy_of(labels: LabelMap) -> NDArray[np.float32]:
    return np.where(labels.labels == 3, 0.8, 0.2).astype(np.float32)


def test_uncertainty_is_by_label_and_over_all_of_them() -> None:
    found = quality.uncertainty(entropy_of(TUMOUR), TUMOUR)
    assert found.mean_by_label == pytest.approx({"Oedema": 0.2, "Enhancing tumour": 0.8})
    assert found.p95 == pytest.approx(0.8)
    assert quality.uncertainty(entropy_of(NOTHING), NOTHING).p95 is None


def test_an_unsure_result_is_said_where_the_manifest_has_a_limit() -> None:
    unsure = quality.uncertainty(entropy_of(TUMOUR), TUMOUR)
    assert list(judged(TUMOUR, unsure=unsure)) == []
    (note,) = judged(TUMOUR, Quality(entropy_p95=0.5), unsure=unsure)
    assert note.code == "RESULT_UNCERTAIN"
    assert note.sentence == "the 95th percentile of the entropy is 0.80, expected at most 0.50"


def test_limits_of_none_ask_nothing() -> None:
    nothing = Quality(
        largest_tumour_ml=None,
        largest_share_of_brain=None,
        most_components=None,
        largest_share_outside_brain=None,
    )
    pieces = map_of(*((1, slice(start, start + 1)) for start in range(0, 40, 2)))
    assert list(judged(pieces, nothing, brain_ml=50.0, share_outside=0.9)) == []


def test_every_code_is_on_the_list() -> None:
    source = Path(quality.__file__).parent
    text = "".join((source / name).read_text() for name in ("quality.py", "predict.py"))
    used = {part.split('"')[0] for part in text.split('Note(code="')[1:]}
    assert used | {"CHANNEL_FIELD_OF_VIEW"} == set(NOTE_CODES)
