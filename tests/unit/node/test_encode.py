"""The SEG of a case: written once it is proved, and the same whenever it is written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest

from converters import series
from converters.errors import GridMismatchError, PartUnknownError, ReadBackError
from converters.phantom import PhantomStudy
from converters.seg import build_segmentation, check_segmentation
from converters.summary_pictures import Page
from converters.volume import LabelMap, Layers, Volume
from inference import manifest
from inference.manifest import Manifest
from inference.note_codes import NOTE_CODES
from node import findings, measuring
from node.cases import (
    AssembledCase,
    AssembledSeries,
    ClosedBy,
    EncodedObject,
    ObjectKind,
    ReceivedInstance,
)
from node.encode import CaseEncoder
from node.identities import identity_of, series_description
from node.spool import Spool
from node.uids import derived_uid
from tests import enhanced
from tests.phantoms import WrittenStudy

MODEL = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
STARTED = datetime(2025, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
CASE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def study(small_study: WrittenStudy) -> PhantomStudy:
    return small_study.study


def received(path: Path, spool: Spool, number: int) -> ReceivedInstance:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    content = path.read_bytes()
    part, digest = spool.new_part(), hashlib.sha256(content).hexdigest()
    part.write_bytes(content)
    name = spool.instance_name(
        study_instance_uid=ds.StudyInstanceUID,
        sop_instance_uid=ds.SOPInstanceUID,
        sha256=digest,
    )
    spool.keep_instance(part, name)
    return ReceivedInstance(
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        calling_ae_title="SENDER",
        path=name,
        byte_count=len(content),
        sha256=digest,
        received_at=STARTED + timedelta(seconds=number),
    )


@pytest.fixture
def case(small_study: WrittenStudy, spool: Spool) -> AssembledCase:
    files = small_study.files
    many = []
    for role in ("t1gd", "flair"):
        instances = tuple(
            received(path, spool, number) for number, path in enumerate(sorted(files.paths[role]))
        )
        uid = instances[0].series_instance_uid
        many.append(AssembledSeries(series_instance_uid=uid, role=role, instances=instances))
    return AssembledCase(
        case_id=CASE_ID,
        study_instance_uid=files.study_instance_uid,
        series=tuple(many),
        reference_role="t1gd",
        closed_by=ClosedBy.COMPLETE,
    )


@pytest.fixture
def label_map(study: PhantomStudy) -> LabelMap:
    return LabelMap(
        labels=study.truth["t1gd"],
        grid=study.volumes["t1gd"].grid,
        segments=MODEL.segments,
        model_id=MODEL.model_id,
    )


def encoded(
    case: AssembledCase, label_map: LabelMap, spool: Spool, model: Manifest = MODEL
) -> EncodedObject:
    return CaseEncoder(case, label_map, model, spool).seg()


def file_of(seg: EncodedObject, spool: Spool) -> Path:
    return spool.root / seg.path


def test_the_result_names_the_file_that_was_written(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    seg = encoded(case, label_map, spool)
    content = file_of(seg, spool).read_bytes()
    ds = pydicom.dcmread(file_of(seg, spool))
    assert seg.path == f"cases/{CASE_ID}/seg.dcm"
    assert (seg.byte_count, seg.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (seg.sop_class_uid, seg.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert seg.transfer_syntax_uid == ds.file_meta.TransferSyntaxUID
    assert (seg.series_instance_uid, seg.study_instance_uid) == (
        ds.SeriesInstanceUID,
        case.study_instance_uid,
    )


def test_encoding_again_gives_the_same_bytes(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    first = encoded(case, label_map, spool)
    shuffled = replace(case.series[0], instances=case.series[0].instances[::-1])
    again = replace(case, series=(case.series[1], shuffled))
    assert encoded(again, label_map, spool) == first
    assert [path.name for path in spool.case_folder(CASE_ID).iterdir()] == ["seg.dcm"]


def test_uids_are_derived_from_the_case_and_the_weights(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    seg = encoded(case, label_map, spool)
    ds = pydicom.dcmread(file_of(seg, spool))
    uid = partial(derived_uid, CASE_ID, MODEL.weights_sha256)
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == (uid("seg"), uid("seg-series"))
    assert [one.TrackingUID for one in ds.SegmentSequence] == [
        uid("seg-tracking-1"),
        uid("seg-tracking-2"),
        uid("seg-tracking-3"),
    ]


def test_its_time_is_that_of_the_last_instance(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    ds = pydicom.dcmread(file_of(encoded(case, label_map, spool), spool))
    last = max(one.received_at for many in case.series for one in many.instances)
    local = last.astimezone()
    assert (ds.ContentDate, ds.ContentTime) == (f"{local:%Y%m%d}", f"{local:%H%M%S.%f}")


def test_it_references_the_reference_series_alone(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    ds = pydicom.dcmread(file_of(encoded(case, label_map, spool), spool))
    (referenced,) = ds.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == case.series[0].series_instance_uid
    assert len(referenced.ReferencedInstanceSequence) == len(case.series[0].instances)


def repacked(case: AssembledCase, folder: Path, spool: Spool) -> AssembledCase:
    """Return the case with a reference series of two echoes in one enhanced instance."""
    paths = [spool.instance_path(one.path) for one in case.series[0].instances]
    echoes = [frame for time in (11.0, 92.0) for frame in enhanced.frames(paths, echo_time_ms=time)]
    file = enhanced.enhanced(enhanced.odd_order(echoes), folder / "enhanced.dcm")
    instances = (received(file, spool, 5),)
    reference = replace(case.series[0], instances=instances, part="EchoTime=92")
    return replace(case, series=(reference, case.series[1]))


def test_it_references_the_frames_of_the_chosen_part(
    case: AssembledCase, label_map: LabelMap, spool: Spool, tmp_path: Path
) -> None:
    case = repacked(case, tmp_path, spool)
    ds = pydicom.dcmread(file_of(encoded(case, label_map, spool), spool))
    source = pydicom.dcmread(spool.instance_path(case.series[0].instances[0].path))
    groups = source.PerFrameFunctionalGroupsSequence
    for group in ds.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        chosen = groups[image.ReferencedFrameNumber - 1]
        assert chosen.MREchoSequence[0].EffectiveEchoTime == 92.0


def test_a_part_that_the_series_does_not_hold_is_refused(
    case: AssembledCase, label_map: LabelMap, spool: Spool, tmp_path: Path
) -> None:
    case = repacked(case, tmp_path, spool)
    other = replace(case.series[0], part="EchoTime=50")
    with pytest.raises(PartUnknownError):
        encoded(replace(case, series=(other, case.series[1])), label_map, spool)


def test_segments_are_described_as_the_model_declares_them(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    ds = pydicom.dcmread(file_of(encoded(case, label_map, spool), spool))
    found = [(one.SegmentLabel, one.SegmentDescription) for one in ds.SegmentSequence]
    assert found == [(one.label, one.description) for one in MODEL.labels]
    (algorithm,) = ds.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.id, MODEL.version)


def in_production(model: Manifest) -> Manifest:
    return model.model_copy(update={"demonstration": False})


@pytest.mark.parametrize(
    ("model", "is_empty", "revision", "expected"),
    [
        (MODEL, False, 1, "AI tumour seg. DEMO MODEL - research use only"),
        (MODEL, True, 1, "AI tumour seg. DEMO MODEL: nothing found - research use only"),
        (MODEL, False, 12, "AI tumour seg. rev. 12 DEMO MODEL - research use only"),
        (MODEL, True, 12, "AI seg. rev. 12 DEMO MODEL: nothing found - research use only"),
        (in_production(MODEL), False, 1, "AI tumour segmentation - research use only"),
        (
            in_production(MODEL),
            True,
            1,
            "AI tumour segmentation: nothing found - research use only",
        ),
        (in_production(MODEL), False, 2, "AI tumour seg. rev. 2 - research use only"),
        (
            *(in_production(MODEL), True, 2),
            "AI tumour seg. rev. 2: nothing found - research use only",
        ),
    ],
)
def test_the_series_says_what_it_is(
    label_map: LabelMap, *, model: Manifest, is_empty: bool, revision: int, expected: str
) -> None:
    if is_empty:
        label_map = replace(label_map, labels=np.zeros_like(label_map.labels))
    assert series_description(label_map, model, revision) == expected
    assert len(expected) <= 64


@pytest.mark.parametrize("is_empty", [True, False])
def test_every_object_of_a_revised_result_says_which_revision(
    case: AssembledCase, label_map: LabelMap, spool: Spool, *, is_empty: bool
) -> None:
    case = replace(case, revision=99)
    if is_empty:
        label_map = replace(label_map, labels=np.zeros_like(label_map.labels))
    flat = np.zeros(label_map.grid.shape, np.float32)
    entropy = Volume(intensities=flat, grid=label_map.grid, role="t1gd")
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    seg, found = encoder.seg(), measuring.of(label_map, MODEL)
    written = [
        seg,
        encoder.regions(found),
        encoder.entropy(entropy),
        encoder.report(found, seg),
        *encoder.pictures(some_pages(), seg),
    ]
    for one in written:
        ds = pydicom.dcmread(file_of(one, spool), stop_before_pixels=True)
        assert "rev. 99" in ds.SeriesDescription
        assert len(ds.SeriesDescription) <= 64
        assert ds.SeriesNumber in {9001 + 9800, 9002 + 9800, 9003 + 9800, 9004 + 9800, 9005 + 9800}


def test_a_case_without_a_tumour_gets_an_object_that_says_so(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    nothing = replace(label_map, labels=np.zeros_like(label_map.labels))
    ds = pydicom.dcmread(file_of(encoded(case, nothing, spool), spool))
    assert "nothing found" in ds.SeriesDescription
    assert ds.ContentDescription == "No voxel was labelled; every frame is empty"
    assert not any(ds.PixelData)


def test_a_title_too_long_for_dicom_is_cut(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    wordy = MODEL.model_copy(update={"title": "back\\slash " + "x" * 100})
    ds = pydicom.dcmread(file_of(encoded(case, label_map, spool, wordy), spool))
    assert ds.ContentDescription == "back/slash " + "x" * 53


def test_a_label_map_of_another_series_leaves_no_file(
    case: AssembledCase, study: PhantomStudy, label_map: LabelMap, spool: Spool
) -> None:
    other = replace(label_map, labels=study.truth["flair"], grid=study.volumes["flair"].grid)
    with pytest.raises(GridMismatchError):
        encoded(case, other, spool)
    assert not list(spool.case_folder(CASE_ID).iterdir())


def test_an_object_that_differs_never_gets_its_name(
    case: AssembledCase, study: PhantomStudy, label_map: LabelMap, spool: Spool
) -> None:
    paths = [spool.instance_path(one.path) for one in case.series[0].instances]
    sources = series.stack(paths)
    wrong = np.array(study.truth["t1gd"])
    wrong[tuple(np.argwhere(wrong)[0])] = 0
    identity = identity_of(ObjectKind.SEG, case, label_map, MODEL)
    seg = build_segmentation(replace(label_map, labels=wrong), sources.headers, identity)
    check = partial(check_segmentation, label_map=label_map, sources=sources.headers)
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    with pytest.raises(ReadBackError):
        encoder._published(ObjectKind.SEG, seg, "seg.dcm", check)
    assert not list(spool.case_folder(CASE_ID).iterdir())


def report_of(case: AssembledCase, label_map: LabelMap, spool: Spool) -> EncodedObject:
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    return encoder.report(measuring.of(label_map, MODEL), encoder.seg())


def test_the_report_refers_to_the_segmentation_and_to_every_input_once(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    report = report_of(case, label_map, spool)
    ds = pydicom.dcmread(file_of(report, spool))
    uid = partial(derived_uid, CASE_ID, MODEL.weights_sha256)
    assert (report.path, report.kind) == (f"cases/{CASE_ID}/sr.dcm", ObjectKind.REPORT)
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == (uid("report"), uid("report-series"))
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    listed = {
        series.SeriesInstanceUID: [
            one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence
        ]
        for series in study.ReferencedSeriesSequence
    }
    assert listed.pop(uid("seg-series")) == [uid("seg")]
    expected = {
        many.series_instance_uid: sorted(one.sop_instance_uid for one in many.instances)
        for many in case.series
    }
    assert {series: sorted(uids) for series, uids in listed.items()} == expected


def test_the_report_is_the_same_bytes_again(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    assert report_of(case, label_map, spool) == report_of(case, label_map, spool)


def test_two_parts_of_one_series_are_evidence_once(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    twice = replace(case, series=(*case.series, replace(case.series[0], role="t1")))
    report_of(twice, label_map, spool)  # the gate counts


def test_the_report_says_what_a_reader_has_to_know(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    said = [
        "INPUT_MISSING: there is no t2",
        "INPUT_MISSING: nor t1",
        "NEW_CODE: of another version",
    ]
    findings.write({"notes": said}, case, spool)
    assert [(one.value, one.meaning) for one in measuring.notes_of(case, spool)] == [
        ("INPUT_MISSING", NOTE_CODES["INPUT_MISSING"]),
        ("NEW_CODE", "NEW_CODE"),
    ]
    content = file_of(report_of(case, label_map, spool), spool).read_bytes()
    assert NOTE_CODES["INPUT_MISSING"].encode() in content


def test_what_notes_mean_is_short_enough_for_a_code() -> None:
    assert all(len(meaning) <= 64 for meaning in NOTE_CODES.values())


@pytest.mark.parametrize("model", [MODEL, in_production(MODEL)])
@pytest.mark.parametrize("is_empty", [False, True])
def test_the_reports_series_says_what_it_is(
    case: AssembledCase, label_map: LabelMap, *, model: Manifest, is_empty: bool
) -> None:
    if is_empty:
        label_map = replace(label_map, labels=np.zeros_like(label_map.labels))
    said = identity_of(ObjectKind.REPORT, case, label_map, model).series_description
    assert said.startswith("AI measurements")
    assert said.endswith(" - research use only")
    assert ("DEMO MODEL" in said, "nothing found" in said) == (model.demonstration, is_empty)
    assert len(said) <= 64


def some_pages() -> tuple[Page, ...]:
    grey = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3)).astype(np.uint8)
    return (
        Page(name="cover", title="Summary", pixels=grey[0]),
        Page(name="planes", title="Three planes", pixels=grey[1]),
    )


def test_pictures_are_one_series_of_the_study_and_refer_to_what_they_show(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    seg = encoder.seg()
    found = encoder.pictures(some_pages(), seg)
    assert [one.path for one in found] == [
        f"cases/{CASE_ID}/summary-cover.dcm",
        f"cases/{CASE_ID}/summary-planes.dcm",
    ]
    headers = [pydicom.dcmread(file_of(one, spool)) for one in found]
    assert {one.SeriesInstanceUID for one in headers} == {found[0].series_instance_uid}
    assert found[0].series_instance_uid != seg.series_instance_uid
    assert [one.InstanceNumber for one in headers] == [1, 2]
    assert len({one.SOPInstanceUID for one in headers}) == 2
    for ds, page in zip(headers, some_pages(), strict=True):
        assert np.array_equal(ds.pixel_array, page.pixels)
        assert ds.StudyInstanceUID == case.study_instance_uid
        series_uids = {one.SeriesInstanceUID for one in ds.ReferencedSeriesSequence}
        assert series_uids == {
            seg.series_instance_uid,
            *(one.series_instance_uid for one in case.series),
        }


def test_pictures_encoded_again_have_the_same_bytes(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    seg = encoder.seg()
    first = encoder.pictures(some_pages(), seg)
    shuffled = replace(case.series[0], instances=case.series[0].instances[::-1])
    again = replace(case, series=(shuffled, case.series[1]))
    assert CaseEncoder(again, label_map, MODEL, spool).pictures(some_pages(), seg) == first


def test_regions_overlap_and_are_tracked_as_the_report_tracks_them(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    encoder, found = CaseEncoder(case, label_map, MODEL, spool), measuring.of(label_map, MODEL)
    seg = encoder.seg()
    regions = encoder.regions(found)
    assert encoder.regions(found) == regions
    assert (regions.kind, regions.path) == (ObjectKind.REGIONS, f"cases/{CASE_ID}/regions.dcm")
    ds = pydicom.dcmread(file_of(regions, spool))
    assert (ds.SegmentsOverlap, ds.SeriesNumber) == ("YES", 9005)
    assert ds.SeriesInstanceUID not in (seg.series_instance_uid, case.series[0].series_instance_uid)
    labels = [one.SegmentLabel for one in ds.SegmentSequence]
    assert labels == ["Whole tumour", "Tumour core", "Enhancing tumour"]
    assert all(one.SegmentDescription for one in ds.SegmentSequence)
    uids = [one.TrackingUID for one in ds.SegmentSequence]
    assert uids == [
        measuring.tracking_uid(case, MODEL, "Whole tumour"),
        measuring.tracking_uid(case, MODEL, "Tumour core"),
        derived_uid(CASE_ID, MODEL.weights_sha256, "seg-tracking-3"),
    ]
    report = file_of(encoder.report(found, seg), spool).read_bytes()
    for one in ds.SegmentSequence:
        assert one.TrackingID.encode() in report
        assert one.TrackingUID.encode() in report


def test_every_form_is_a_series_of_its_own(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    values = np.random.default_rng(0).integers(0, 256, (3, *label_map.grid.shape)).astype(np.uint8)
    shares = Layers(
        values=values,
        most=255,
        grid=label_map.grid,
        segments=label_map.segments,
        model_id=label_map.model_id,
    )
    made = [
        encoder.seg(),
        encoder.regions(measuring.of(label_map, MODEL)),
        encoder.label_map(),
        encoder.probabilities(shares),
    ]
    headers = [pydicom.dcmread(file_of(one, spool)) for one in made]
    assert [one.SeriesNumber for one in headers] == [9001, 9005, 9006, 9007]
    assert len({one.series_instance_uid for one in made}) == 4
    assert len({one.sop_instance_uid for one in made}) == 4
    assert [one.SegmentationType for one in headers][2:] == ["LABELMAP", "FRACTIONAL"]
    assert all("research use only" in one.SeriesDescription for one in headers)
    encoder.forget_all_but(made[:1])
    assert list(spool.case_folder(CASE_ID).iterdir()) == [file_of(made[0], spool)]


def test_without_a_segmentation_report_and_pictures_stand_alone(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    nothing = replace(label_map, labels=np.zeros_like(label_map.labels))
    encoder = CaseEncoder(case, nothing, MODEL, spool)
    report = encoder.report(measuring.of(nothing, MODEL), None)
    made = [report, *encoder.pictures(some_pages(), None)]
    seg_uid = derived_uid(CASE_ID, MODEL.weights_sha256, "seg").encode()
    assert all(seg_uid not in file_of(one, spool).read_bytes() for one in made)
    assert "nothing found" in pydicom.dcmread(file_of(report, spool)).SeriesDescription


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_every_kinds_series_description_is_short_enough_where_nothing_is_found(
    case: AssembledCase, label_map: LabelMap, kind: ObjectKind
) -> None:
    nothing = replace(label_map, labels=np.zeros_like(label_map.labels))
    assert len(identity_of(kind, case, nothing, MODEL).series_description) <= 64
