"""The summary of a case as files: what it says, and that it says nothing about the patient."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from converters.summary_pictures import Page
from converters.volume import LabelMap
from inference import manifest
from node import convert, pictures
from node.cases import AssembledCase, AssembledSeries, ClosedBy
from node.settings import Align
from node.spool import Spool
from tests.phantoms import WrittenStudy, with_attribute
from tests.unit.node.test_encode import received

MODEL = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
CASE_ID = "0123456789abcdef0123456789abcdef"
SHOWN: dict[str, Any] = {
    "volumes_ml": {"Oedema": 48.31, "Necrotic and non-enhancing core": 0.02, "Enhancing tumour": 0},
    "regions_ml": {"Whole tumour": 48.33},
    "notes": ["INPUT_MISSING: there is no t2; the model was run without it", "odd"],
    "measurements": {"lesions": [{"number": 1, "enhancing": None}]},
}


def converted(
    study: WrittenStudy, spool: Spool, folder: Path | None = None, **values: str
) -> AssembledCase:
    """Return a case whose volumes lie in its folder; `values` are attributes of its files."""
    many = []
    for role in ("flair", "t1gd"):
        paths = sorted(study.files.paths[role])
        for keyword, value in values.items():
            paths = with_attribute(paths, (folder or Path()) / keyword / role, keyword, value)
        instances = tuple(received(path, spool, number) for number, path in enumerate(paths))
        uid = instances[0].series_instance_uid
        many.append(AssembledSeries(series_instance_uid=uid, role=role, instances=instances))
    case = AssembledCase(
        case_id=CASE_ID,
        study_instance_uid=study.files.study_instance_uid,
        series=tuple(many),
        reference_role="t1gd",
        closed_by=ClosedBy.COMPLETE,
    )
    align = Align(registration="off")
    convert.convert_case(case, ("flair", "t1gd"), spool, align_by=align)
    return case


def labels_of(study: WrittenStudy) -> LabelMap:
    return LabelMap(
        labels=study.study.truth["t1gd"],
        grid=study.study.volumes["t1gd"].grid,
        segments=MODEL.segments,
        model_id=MODEL.model_id,
    )


def drawn(case: AssembledCase, study: WrittenStudy, spool: Spool) -> tuple[Page, ...]:
    volumes = pictures.volumes_of(case, spool)
    return pictures.draw(case, volumes, labels_of(study), SHOWN, MODEL, spool)


def test_pages_are_kept_as_png_files_and_those_of_another_run_are_dropped(
    small_study: WrittenStudy, spool: Spool
) -> None:
    case = converted(small_study, spool)
    folder = spool.case_folder(CASE_ID)
    for stale in ("summary-axial-t2.png", "summary-axial-t2.dcm"):
        (folder / stale).write_bytes(b"old")
    pages = drawn(case, small_study, spool)
    assert [page.name for page in pages] == ["cover", "planes", "axial-t1gd", "axial-flair"]
    files = {path.name: path for path in folder.glob("summary-*")}
    assert set(files) == {f"summary-{page.name}.png" for page in pages}
    for page in pages:
        image = Image.open(io.BytesIO(files[f"summary-{page.name}.png"].read_bytes()))
        assert np.array_equal(np.asarray(image), page.pixels)


def test_nothing_of_the_patient_is_burnt_in(
    small_study: WrittenStudy, spool: Spool, tmp_path: Path
) -> None:
    one = drawn(converted(small_study, spool), small_study, spool)
    other = Spool(tmp_path / "other")
    renamed = converted(
        small_study,
        other,
        tmp_path / "renamed",
        PatientName="Somebody^Else",
        PatientID="12345",
        PatientBirthDate="19010203",
        AccessionNumber="A-1",
    )
    path = other.instance_path(renamed.series[0].instances[0].path)
    assert pydicom.dcmread(path).PatientID == "12345"
    again = drawn(renamed, small_study, other)
    for first, second in zip(one, again, strict=True):
        assert np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize(
    ("value", "said"),
    [("20250301", "2025-03-01"), ("", "not stated"), ("1.3.2025", "not stated")],
)
def test_the_date_of_the_study_is_said_as_people_write_it(
    small_study: WrittenStudy, spool: Spool, tmp_path: Path, value: str, said: str
) -> None:
    path = tmp_path / "one.dcm"
    ds = pydicom.dcmread(small_study.files.paths["t1gd"][0])
    ds.add_new("StudyDate", "LO", value)  # as it stands, however wrong
    ds.save_as(path)
    instance = received(path, spool, 0)
    series = AssembledSeries(series_instance_uid="1.2", role="t1gd", instances=(instance,))
    case = AssembledCase(
        case_id=CASE_ID,
        study_instance_uid="1.2",
        series=(series,),
        reference_role="t1gd",
        closed_by=ClosedBy.COMPLETE,
    )
    assert pictures._date(case, spool) == said
    flair = replace(series, role="flair")
    words = pictures.words_of(replace(case, series=(series, flair)), SHOWN, MODEL, said)
    assert dict(words.facts) == {
        "Model": MODEL.title,
        "Version": MODEL.model_id,
        "Date of the study": said,
        "Sequences used": "T1 with contrast, FLAIR",
        "Outlines lie on": "T1 with contrast",
    }


def test_volumes_and_notes_are_said_in_words(small_study: WrittenStudy, spool: Spool) -> None:
    words = pictures.words_of(converted(small_study, spool), SHOWN, MODEL, "2025-03-01")
    assert [(row.label, *row.values) for row in words.rows] == [
        ("Oedema", "48.3 mL"),
        ("Necrotic and non-enhancing core", "< 0.1 mL"),
        ("Enhancing tumour", "0.0 mL"),
        ("Whole tumour", "48.3 mL"),
    ]
    assert [row.color_rgb is None for row in words.rows] == [False, False, False, True]
    assert words.notes == ("There is no t2; the model was run without it", "Odd")
    assert words.is_demonstration
    assert words.columns == ("Volume",)


def test_the_diameters_of_the_largest_enhancing_lesions_stand_on_the_cover(
    small_study: WrittenStudy, spool: Spool
) -> None:
    sizes = [(2.0, 39.03, 33.64), None, (0.02, 8.6, 5.5), (0.4, 7.1, 5.0), (0.3, 6.0, 5.0)]
    lesions = [
        {
            "number": n,
            "enhancing": s and dict(zip(("volume_ml", "long_mm", "short_mm"), s, strict=True)),
        }
        for n, s in enumerate(sizes, start=1)
    ]
    shown = {**SHOWN, "measurements": {"lesions": lesions}}
    words = pictures.words_of(converted(small_study, spool), shown, MODEL, "2025-03-01")
    assert words.columns == ("Volume", "Diameters")
    assert {len(row.values) for row in words.rows} == {2}
    assert [(row.label, *row.values) for row in words.rows[-4:]] == [
        ("Whole tumour", "48.3 mL", ""),
        ("Enhancing tumour of lesion 1", "2.0 mL", "39 x 34 mm"),
        ("Enhancing tumour of lesion 3", "< 0.1 mL", "9 x 6 mm"),
        ("Enhancing tumour of lesion 4", "0.4 mL", "7 x 5 mm"),
    ]
