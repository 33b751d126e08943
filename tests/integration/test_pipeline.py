"""The stages of a case with real files, a real archive and no network of neurons."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import pytest

from converters.volume import LabelMap, Layers, Volume
from inference.errors import ChannelImplausibleError
from node import convert, findings, tables
from node.cases import AssembledCase, CaseState, ObjectKind, Stage
from node.demo.archive import DemoArchive
from node.disposition import delay_s
from node.jobs import Job
from node.ledger import Ledger
from node.peers import Destination
from node.pipeline import Pipeline, Segmenter, Stop, next_jobs
from node.rows import CaseRow
from node.settings import Align, Delivery
from node.spool import Spool
from tests import peers, phantoms
from tests.peers import free_port
from tests.phantoms import WrittenStudy
from tests.stages import MANIFEST, at, bright_is_tumour, close, parts, run_all, take_in

ROLES = MANIFEST.roles
MOTION_KEYS = {"role", "is_applied", "shift_mm", "rotation_deg", "reason"}


@pytest.fixture
def closed(small_study: WrittenStudy, spool: Spool, ledger: Ledger) -> CaseRow:
    take_in(small_study.interleaved, spool, ledger)
    return close(spool, ledger)


def test_each_stage_may_run_twice_and_the_result_is_the_same_bytes(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive
) -> None:
    pipeline = Pipeline(parts(spool, ledger, at(archive.port)))
    (job,) = next_jobs(closed, ledger, [at(archive.port)])
    digests: dict[Stage, set[str]] = {}
    for state, file in (
        (CaseState.COMPLETE, "channels.nii.gz"),
        (CaseState.ASSEMBLED, "labels.nii.gz"),
        (CaseState.SEGMENTED, "sr.dcm"),
    ):
        assert ledger.case(closed.case_id).state is state
        following = pipeline.perform(job)
        path = spool.case_folder(closed.case_id) / file
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        assert pipeline.perform(job) == following  # the state has moved on: nothing is done again
        with ledger.engine.begin() as connection:  # as if it had been killed before the move
            connection.execute(tables.case.update().values(state=state.value))
        assert pipeline.perform(job) == following
        digests[job.stage] = {before, hashlib.sha256(path.read_bytes()).hexdigest()}
        (job,) = following
    assert pipeline.perform(job) == []
    assert pipeline.perform(job) == []
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    assert all(len(found) == 1 for found in digests.values())
    assert list(archive.arrivals.values()) == [1, 1]  # SEG and report


def test_each_channels_file_is_what_dcm2niix_makes_of_the_series(
    closed: CaseRow, small_study: WrittenStudy, spool: Spool, ledger: Ledger, tmp_path: Path
) -> None:
    peers.require("dcm2niix")
    run_all(parts(spool, ledger), closed.case_id, until=CaseState.ASSEMBLED)
    folder = spool.case_folder(closed.case_id)
    for role in ROLES:
        theirs = dcm2niix(small_study.files.paths[role][0].parent, tmp_path / role)
        ours = canonical(folder / f"{role}.nii")
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=1e-4)
    channels = nibabel.Nifti1Image.from_filename(folder / "channels.nii.gz")
    reference = nibabel.Nifti1Image.from_filename(folder / "t1gd.nii")
    assert channels.shape == (*reference.shape, len(ROLES))
    third = np.asarray(channels.dataobj)[..., ROLES.index("t1gd")]
    np.testing.assert_array_equal(third, np.asarray(reference.dataobj))


def dcm2niix(series: Path, out: Path) -> nibabel.Nifti1Image:
    """Return what dcm2niix makes of a series, as `canonical` does."""
    out.mkdir()
    command = [peers.program("dcm2niix") or "", "-b", "n", "-z", "n", "-p", "n"]
    subprocess.run(
        [*command, "-f", "out", "-o", str(out), str(series)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (path,) = out.glob("*.nii")
    return canonical(path)


def canonical(path: Path) -> nibabel.Nifti1Image:
    """Return an image with its axes permuted and flipped to the closest RAS."""
    image = nibabel.Nifti1Image.from_filename(path)
    turned: nibabel.Nifti1Image = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]
    return turned


def test_a_job_of_an_earlier_run_does_nothing(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    old = Job(case_id=closed.case_id, run=closed.run + 7, stage=Stage.CONVERT)
    assert Pipeline(parts(spool, ledger)).perform(old) == []
    assert ledger.case(closed.case_id).state is CaseState.COMPLETE


def test_an_absent_pacs_is_tried_with_growing_delays_then_failed_then_retried(
    closed: CaseRow, spool: Spool, ledger: Ledger, tmp_path: Path
) -> None:
    port = free_port()
    all_parts = parts(spool, ledger, at(port))
    assert run_all(all_parts, closed.case_id) == []
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.FAILED, "PEER_UNAVAILABLE")
    outcomes = [one.outcome for one in ledger.attempts(row.case_id) if one.stage is Stage.DELIVER]
    assert outcomes == ["retry", "retry", "failed"]

    archive = DemoArchive(tmp_path / "late", port=port)
    archive.start()
    reopened = ledger.reopen(row.case_id)
    assert (reopened.state, reopened.run, reopened.code) == (CaseState.ENCODED, 2, None)
    run_all(all_parts, row.case_id)
    archive.stop()
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
    assert len(archive.instances()) == 2  # SEG and report


def test_delays_double_up_to_the_longest() -> None:
    delivery = Delivery(first_delay_s=10.0, longest_delay_s=1800.0)
    assert [delay_s(n, delivery) for n in (1, 2, 3, 8, 9, 500)] == [10, 20, 40, 1280, 1800, 1800]


def test_a_destination_that_fails_keeps_the_result_from_no_other(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive
) -> None:
    away, here = at(free_port(), "away"), at(archive.port, "here")
    run_all(parts(spool, ledger, away, here), closed.case_id)
    assert ledger.case(closed.case_id).state is CaseState.FAILED
    assert [one.destination for one in ledger.receipts(closed.case_id)] == ["here", "here"]
    assert len(archive.instances()) == 2  # SEG and report


def unsure(spool: Spool) -> Segmenter:
    """Return a segmenter that keeps an entropy, as the engine does where it is asked to."""
    label = bright_is_tumour(spool)

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        found = label(case, stop)
        values = np.random.default_rng(0).random(found.grid.shape, dtype=np.float32)
        entropy = Volume(intensities=values, grid=found.grid, role="entropy")
        convert.write_entropy(entropy, case, spool)
        return found

    return _segment


def test_the_entropy_goes_to_those_who_want_it_and_a_retry_sends_only_what_lacks(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive, tmp_path: Path
) -> None:
    port = free_port()
    wanting = at(port, "wanting").model_copy(update={"entropy": True})
    plain = at(archive.port, "plain").model_copy(update={"sr": False})
    all_parts = dataclasses.replace(parts(spool, ledger, wanting, plain), segmenter=unsure(spool))
    run_all(all_parts, closed.case_id)  # nobody is at the first one
    assert ledger.case(closed.case_id).state is CaseState.FAILED
    seg, *beside = ledger.results(closed.case_id)
    by_kind = {one.kind: one for one in beside}
    entropy, report = by_kind[ObjectKind.ENTROPY], by_kind[ObjectKind.REPORT]
    assert [one.sop_instance_uid for one in ledger.receipts(closed.case_id)] == [
        seg.sop_instance_uid
    ]
    late = DemoArchive(tmp_path / "late", port=port)
    late.start()
    try:
        ledger.reopen(closed.case_id)
        run_all(all_parts, closed.case_id)
    finally:
        late.stop()
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    assert set(late.arrivals) == {one.sop_instance_uid for one in (seg, entropy, report)}
    assert set(archive.arrivals) == {seg.sop_instance_uid}
    assert all(count == 1 for one in (late, archive) for count in one.arrivals.values())


def with_everything(spool: Spool) -> Segmenter:
    """Return a segmenter that keeps probabilities, as the engine does where it is asked to."""
    label = bright_is_tumour(spool)

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        found = label(case, stop)
        shape = (len(found.segments), *found.grid.shape)
        values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        layers = Layers(
            values=values,
            most=255,
            grid=found.grid,
            segments=found.segments,
            model_id=found.model_id,
        )
        convert.write_probabilities(layers, case, spool)
        return found

    return _segment


def getting(port: int, name: str, *seg: str, sr: bool = False) -> Destination:
    return at(port, name).model_copy(update={"seg": seg, "sr": sr})


def test_every_destination_gets_the_forms_that_it_asks_for(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive, tmp_path: Path
) -> None:
    other = DemoArchive(tmp_path / "other")
    other.start()
    try:
        wanting = (
            getting(archive.port, "usual", "labels", sr=True),
            getting(archive.port, "nested", "regions"),
            getting(other.port, "machines", "labelmap", "probabilities"),
        )
        usual = parts(spool, ledger, *wanting)
        run_all(dataclasses.replace(usual, segmenter=with_everything(spool)), closed.case_id)
    finally:
        other.stop()
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    kind_of = {one.sop_instance_uid: one.kind for one in ledger.results(closed.case_id)}
    assert len(set(kind_of.values())) == len(kind_of) == 5
    got: dict[str, set[ObjectKind]] = {}
    for receipt in ledger.receipts(closed.case_id):
        got.setdefault(receipt.destination, set()).add(kind_of[receipt.sop_instance_uid])
    assert got == {
        "usual": {ObjectKind.SEG, ObjectKind.REPORT},
        "nested": {ObjectKind.REGIONS},
        "machines": {ObjectKind.LABELMAP, ObjectKind.PROBABILITIES},
    }
    assert {kind_of[uid] for uid in other.arrivals} == got["machines"]


def test_forms_that_nobody_asks_for_are_not_made(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    usual = parts(spool, ledger)
    run_all(dataclasses.replace(usual, segmenter=with_everything(spool)), closed.case_id)
    assert {path.name for path in spool.case_folder(closed.case_id).glob("*.dcm")} == {
        "seg.dcm",
        "sr.dcm",
    }


@pytest.mark.integration
def test_a_form_that_a_destination_refuses_keeps_nothing_else_from_it(
    closed: CaseRow, spool: Spool, ledger: Ledger, orthanc: peers.Orthanc
) -> None:
    """Orthanc takes no Label Map Segmentation by C-STORE unless it is told to."""
    wanting = getting(orthanc.dicom_port, "pacs", "labelmap", "labels", "regions", sr=True)
    run_all(parts(spool, ledger, wanting), closed.case_id)
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.FAILED, "PEER_REFUSED")
    assert row.sentence == "pacs refused with status context rejected"
    results = {one.kind: one.sop_instance_uid for one in ledger.results(closed.case_id)}
    there = {one.sop_instance_uid for one in ledger.receipts(closed.case_id)}
    assert there == set(results.values()) - {results[ObjectKind.LABELMAP]}
    stored = orthanc.find_instances(row.study_instance_uid, "SEG")
    assert set(stored) == {results[ObjectKind.SEG], results[ObjectKind.REGIONS]}


def nothing_found(spool: Spool) -> Segmenter:
    label = bright_is_tumour(spool)

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        found = label(case, stop)
        return dataclasses.replace(found, labels=np.zeros_like(found.labels))

    return _segment


@pytest.mark.parametrize(
    ("empty", "expected"),
    [
        ("seg", {ObjectKind.SEG, ObjectKind.REGIONS, ObjectKind.REPORT, ObjectKind.PICTURE}),
        ("report", {ObjectKind.REPORT, ObjectKind.PICTURE}),
    ],
)
def test_that_nothing_was_found_is_said_as_the_site_wants_it(
    closed: CaseRow,
    spool: Spool,
    ledger: Ledger,
    archive: DemoArchive,
    *,
    empty: Literal["seg", "report"],
    expected: set[ObjectKind],
) -> None:
    wanting = getting(archive.port, "pacs", "labels", "regions", sr=True)
    usual = parts(spool, ledger, wanting.model_copy(update={"pictures": True}))
    delivery = usual.settings.delivery.model_copy(update={"empty": empty})
    settings = usual.settings.model_copy(update={"delivery": delivery})
    run_all(
        dataclasses.replace(usual, settings=settings, segmenter=nothing_found(spool)),
        closed.case_id,
    )
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    results = ledger.results(closed.case_id)
    assert {one.kind for one in results} == expected
    assert set(archive.arrivals) == {one.sop_instance_uid for one in results}


def test_the_pictures_go_to_those_who_want_them_as_one_series(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive, tmp_path: Path
) -> None:
    other = DemoArchive(tmp_path / "other")
    other.start()
    try:
        wanting = at(other.port, "wanting").model_copy(update={"pictures": True})
        run_all(parts(spool, ledger, wanting, at(archive.port, "plain")), closed.case_id)
    finally:
        other.stop()
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    results = ledger.results(closed.case_id)
    pictures = [one for one in results if one.kind is ObjectKind.PICTURE]
    assert len({one.series_instance_uid for one in pictures}) == 1
    assert len(pictures) == 4
    others = {one.sop_instance_uid for one in results if one not in pictures}
    assert len(others) == 2  # SEG and report
    assert set(archive.arrivals) == others
    assert set(other.arrivals) == {one.sop_instance_uid for one in results}


def to_folder(path: Path, **wishes: object) -> Destination:
    one = {"name": "share", "transport": "folder", "path": str(path), **wishes}
    return Destination.model_validate(one)


def test_each_destination_gets_exactly_what_it_wants_and_a_folder_gets_it_as_files(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive, tmp_path: Path
) -> None:
    target = tmp_path / "share"
    target.mkdir()
    share = to_folder(target, also=["flair", "t1gd"], sr=False)
    planning = at(archive.port, "planning").model_copy(update={"rtstruct": True, "also": ("t2",)})
    run_all(parts(spool, ledger, share, planning), closed.case_id)
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    by_name = {Path(one.path).name: one for one in ledger.results(closed.case_id)}
    assert set(by_name) == {"seg.dcm", "seg-flair.dcm", "seg-t2.dcm", "rtstruct.dcm", "sr.dcm"}
    planned = ("seg.dcm", "seg-t2.dcm", "rtstruct.dcm", "sr.dcm")
    assert set(archive.arrivals) == {by_name[name].sop_instance_uid for name in planned}
    (folder,) = target.iterdir()
    beside = {"labels.nii.gz", "channels.nii.gz", "measurements.json"}
    assert folder.name == closed.case_id
    assert {one.name for one in folder.iterdir()} == {"seg.dcm", "seg-flair.dcm", *beside}
    for one in folder.iterdir():
        assert one.read_bytes() == (spool.case_folder(closed.case_id) / one.name).read_bytes()
    receipts = [one for one in ledger.receipts(closed.case_id) if one.destination == "share"]
    assert {one.status_code for one in receipts} == {"stored"}


def test_a_share_that_is_not_mounted_is_told_and_does_not_keep_others_from_theirs(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive, tmp_path: Path
) -> None:
    share = to_folder(tmp_path / "mnt", nifti=False)
    all_parts = parts(spool, ledger, share, at(archive.port))
    run_all(all_parts, closed.case_id)
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.FAILED, "FOLDER_UNAVAILABLE")
    assert not (tmp_path / "mnt").exists()
    assert len(archive.arrivals) == 2
    (tmp_path / "mnt").mkdir()
    ledger.reopen(closed.case_id)
    run_all(all_parts, closed.case_id)
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    (folder,) = (tmp_path / "mnt").iterdir()
    assert {one.name for one in folder.iterdir()} == {"seg.dcm", "sr.dcm"}


def test_pictures_are_drawn_for_the_page_and_not_written_as_dicom_where_nobody_wants_them(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive
) -> None:
    run_all(parts(spool, ledger, at(archive.port)), closed.case_id)
    kinds = {one.kind for one in ledger.results(closed.case_id)}
    assert kinds == {ObjectKind.SEG, ObjectKind.REPORT}
    folder = spool.case_folder(closed.case_id)
    assert {one.name for one in folder.glob("summary-*")} == {
        f"summary-{name}.png" for name in ("cover", "planes", "axial-t1gd", "axial-flair")
    }


def test_a_destination_taken_out_of_the_configuration_is_not_waited_for(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    run_all(parts(spool, ledger, at(free_port())), closed.case_id, until=CaseState.ENCODED)
    job = Job(case_id=closed.case_id, run=1, stage=Stage.DELIVER, destination="pacs")
    Pipeline(parts(spool, ledger)).perform(job)
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED


def test_a_defect_fails_the_case_with_a_code_and_none_of_its_words(
    closed: CaseRow, spool: Spool, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    def _broken(_: AssembledCase, __: Stop) -> LabelMap:
        raise ValueError("Mustermann^Erika is not a number")

    run_all(dataclasses.replace(parts(spool, ledger), segmenter=_broken), closed.case_id)
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.FAILED, "UNFORESEEN")
    assert row.sentence is not None
    assert row.sentence.startswith("an unforeseen ValueError in test_pipeline.py:")
    assert "Mustermann" not in repr(row) + repr(ledger.attempts(row.case_id))
    assert "Mustermann" not in capsys.readouterr().out


def test_a_lack_of_memory_outside_the_device_is_tried_again_briefly(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    def _greedy(_: AssembledCase, __: Stop) -> LabelMap:
        raise MemoryError

    run_all(dataclasses.replace(parts(spool, ledger), segmenter=_greedy), closed.case_id)
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.FAILED, "MEMORY_SHORT")
    outcomes = [one.outcome for one in ledger.attempts(row.case_id) if one.stage is Stage.SEGMENT]
    assert outcomes == ["retry", "retry", "failed"]


def test_series_of_two_frames_of_reference_are_refused(
    small_study: WrittenStudy, spool: Spool, ledger: Ledger, tmp_path: Path
) -> None:
    paths = dict(small_study.files.paths)
    paths["t2"] = phantoms.other_frame_of_reference(paths["t2"], tmp_path / "t2")
    take_in([path for many in paths.values() for path in many], spool, ledger)
    row = close(spool, ledger)
    assert run_all(parts(spool, ledger), row.case_id) == []
    ended = ledger.case(row.case_id)
    assert (ended.state, ended.code) == (CaseState.REJECTED, "GEOM_FRAME_OF_REFERENCE")


def test_what_the_segment_stage_found_out_stands_in_the_summary(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    def _with_findings(case: AssembledCase, stop: Stop) -> LabelMap:
        findings.write({"notes": ["BRAIN_VOLUME_UNUSUAL: 700 mL"]}, case, spool)
        return bright_is_tumour(spool)(case, stop)

    run_all(dataclasses.replace(parts(spool, ledger), segmenter=_with_findings), closed.case_id)
    summary = ledger.case(closed.case_id).summary or {}
    assert summary["notes"] == ["BRAIN_VOLUME_UNUSUAL: 700 mL"]
    assert summary["alignment"] == []  # registration is off here
    assert (summary["uncertainty"], summary["tta"]) == (None, None)
    (painted,) = (volume for volume in summary["volumes_ml"].values() if volume)  # label 3 alone
    assert summary["regions_ml"] == {"Whole tumour": painted, "Tumour core": painted}


def test_a_result_with_a_note_that_holds_it_is_delivered_once_it_is_released(
    closed: CaseRow, spool: Spool, ledger: Ledger, archive: DemoArchive
) -> None:
    def _with_findings(case: AssembledCase, stop: Stop) -> LabelMap:
        findings.write({"notes": ["INPUT_MISSING: no t2", "RESULT_UNCERTAIN: a bit"]}, case, spool)
        return bright_is_tumour(spool)(case, stop)

    usual = parts(spool, ledger, at(archive.port))
    delivery = usual.settings.delivery.model_copy(update={"hold_codes": ("INPUT_MISSING",)})
    settings = usual.settings.model_copy(update={"delivery": delivery})
    holding = dataclasses.replace(usual, settings=settings, segmenter=_with_findings)
    assert run_all(holding, closed.case_id) == []
    row = ledger.case(closed.case_id)
    assert (row.state, (row.summary or {})["held_for"]) == (CaseState.HELD, ["INPUT_MISSING"])
    for destination in ("pacs", ""):
        stray = Job(
            case_id=row.case_id, run=1, stage=Stage.DELIVER, destination=destination, attempt=9
        )
        assert Pipeline(holding).perform(stray) == []
    assert not archive.instances()

    ledger.release(row.case_id)
    assert run_all(holding, closed.case_id) == []
    assert ledger.case(closed.case_id).state is CaseState.DELIVERED
    assert list(archive.arrivals.values()) == [1, 1]  # SEG and report


def test_an_input_that_the_model_cannot_work_on_is_rejected_with_its_code(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    def _implausible(_: AssembledCase, __: Stop) -> LabelMap:
        raise ChannelImplausibleError(reason="flair and t2 are exchanged")

    run_all(dataclasses.replace(parts(spool, ledger), segmenter=_implausible), closed.case_id)
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.REJECTED, "CHANNEL_IMPLAUSIBLE")
    assert row.advice


def test_the_motions_of_a_registered_case_stand_in_the_summary(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    registered = parts(spool, ledger)
    settings = registered.settings.model_copy(update={"align": Align()})
    run_all(dataclasses.replace(registered, settings=settings), closed.case_id)
    motions = (ledger.case(closed.case_id).summary or {})["alignment"]
    assert {one["role"] for one in motions} == {"flair", "t1", "t2"}
    assert all(one.keys() == MOTION_KEYS and one["reason"] for one in motions)
