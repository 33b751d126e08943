"""Open cases as time goes by: hung up senders, counts of the PACS, operators, late series."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from converters.sequences import SeriesKey
from inference import manifest as manifests
from inference.declarations import MissingInput
from node import tables
from node.cases import CaseState, ClosedBy, Ending
from node.closing import Closer
from node.disposition import ending_of
from node.errors import CancelledByOperatorError, ConfigError
from node.jobs import Jobs
from node.ledger import Ledger
from node.peers import Source
from node.pipeline import Parts
from node.receive.scp import StorageScp
from node.rows import CaseRow
from node.settings import Assemble, Receive, Settings
from node.site_rules import SeriesRule
from node.spool import Spool
from tests import peers, phantoms
from tests.nodes import MODEL
from tests.peers import Orthanc, storescu
from tests.phantoms import WrittenStudy
from tests.stages import take_in
from tests.waiting import wait_until

MANIFEST = manifests.load(MODEL).model_copy(update={"missing_input": MissingInput()})
WAITING = Assemble(settle_s=3.0, released_quiet_s=15.0, quiet_s=60.0, deadline_s=3600.0)


class Clock:
    """The time since the node began, which only tests move."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


class Desk:
    """A closer with its clock and ledger."""

    def __init__(self, spool: Spool, ledger: Ledger, jobs: Jobs) -> None:
        self.spool, self.ledger, self.clock = spool, ledger, Clock()
        self._jobs = jobs
        self._held, self._base_s = frozenset[str](), 0.0
        self.closer = self.started()

    def started(self, waiting: Assemble = WAITING, source: Source | None = None) -> Closer:
        """Return a closer as a new process would have it."""
        parts = Parts(
            settings=Settings(assemble=waiting, source=source or Source()),
            ledger=self.ledger,
            spool=self.spool,
            manifest=MANIFEST,
        )
        self.closer = Closer(parts, self._jobs, clock=self.clock)
        return self.closer

    def after(self, seconds: float) -> CaseRow:
        """Return the newest case when the closer has looked, so long after the last instance.

        The clock only runs: what has come since is found by a look first.
        """
        held = frozenset(one.path for one in self.ledger.instance_files())
        if held != self._held:  # no name is ever used twice
            self._held, self._base_s = held, self.clock.ahead_s
            self.closer.look()
        self.clock.ahead_s = max(self.clock.ahead_s, self._base_s + seconds)
        self.closer.look()
        return max(self.ledger.cases(), key=lambda row: row.revision)

    def chosen(self, row: CaseRow) -> dict[str, str]:
        """Return the series that a closed case was closed with."""
        members = self.ledger.assembled(row.case_id).series
        return {one.role: one.series_instance_uid for one in members}


@pytest.fixture
def desk(spool: Spool, ledger: Ledger, jobs: Jobs) -> Desk:
    return Desk(spool, ledger, jobs)


def paths_of(study: WrittenStudy, *roles: str) -> list[Path]:
    return [path for role in roles or MANIFEST.roles for path in study.files.paths[role]]


def series_of(study: WrittenStudy, role: str) -> str:
    return str(dcmread(study.files.paths[role][0]).SeriesInstanceUID)


def repeated(study: WrittenStudy, role: str, folder: Path) -> list[Path]:
    """Copy a series as if it had been acquired twice."""

    def _edit(index: int, ds: Dataset) -> None:
        del index
        ds.SeriesInstanceUID += ".1"
        ds.SOPInstanceUID += ".1"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID

    return phantoms.edited(study.files.paths[role], folder, _edit)


# -- waiting --------------------------------------------------------------------------------------


def test_an_open_case_says_what_it_waits_for(small_study: WrittenStudy, desk: Desk) -> None:
    take_in(paths_of(small_study, "flair", "t1", "t1gd"), desk.spool, desk.ledger)
    row = desk.after(4)
    assert row.state is CaseState.RECEIVING
    assert row.reason.startswith("STUDY_SEQUENCE_MISSING: no series serves as t2")
    assert {one.role for one in desk.ledger.decisions(row.case_id)} == {"flair", "t1", "t1gd"}
    take_in(paths_of(small_study, "t2"), desk.spool, desk.ledger)
    assert desk.after(4).closed_by is ClosedBy.COMPLETE


def test_a_rule_of_the_site_decides_before_everything_else(
    small_study: WrittenStudy, desk: Desk
) -> None:
    rule = SeriesRule.model_validate(
        {"name": "never", "role": "other", "where": {"InversionTime": {"at_least": 1500}}}
    )
    desk.started(WAITING.model_copy(update={"series_rules": (rule,)}))
    take_in(paths_of(small_study), desk.spool, desk.ledger)
    row = desk.after(61)
    assert (row.state, row.code) == (CaseState.REJECTED, "STUDY_SEQUENCE_MISSING")
    assert row.sentence is not None
    assert "flair" in row.sentence


@pytest.mark.integration
@pytest.mark.parametrize("ends", ["released", "aborted"])
def test_only_a_sender_that_has_properly_hung_up_shortens_the_waiting(
    ends: str, small_study: WrittenStudy, desk: Desk
) -> None:
    peers.require("dcmtk")
    scp = StorageScp(
        Receive(port=0), spool=desk.spool, ledger=desk.ledger, model_id=MANIFEST.model_id
    )
    scp.start()
    extra = ("--abort",) if ends == "aborted" else ()
    sent = storescu(paths_of(small_study, "flair", "t1"), port=scp.port, extra=extra)
    scp.stop(grace_s=5.0)
    assert sent.returncode == 0, sent.stderr
    (row,) = desk.ledger.cases()
    assert (row.released_at is not None) is (ends == "released")
    assert desk.after(10).state is CaseState.RECEIVING
    wanted = CaseState.REJECTED if ends == "released" else CaseState.RECEIVING
    assert desk.after(30).state is wanted
    assert desk.after(61).state is CaseState.REJECTED


@pytest.mark.integration
def test_what_the_pacs_counts_is_waited_for(
    small_study: WrittenStudy, desk: Desk, orthanc: Orthanc
) -> None:
    orthanc.upload(paths_of(small_study))
    desk.started(source=Source(transport="qido", url=orthanc.dicomweb_url, poll_s=0.1))
    late = small_study.files.paths["t2"][-1]  # an outer slice: headers cannot tell that it lacks
    rest = [path for path in paths_of(small_study) if path != late]
    take_in(rest, desk.spool, desk.ledger)
    wait_until(lambda: "1 images of 1 series" in desk.after(100).reason, 10, "the PACS's answer")
    assert desk.after(3000).state is CaseState.RECEIVING
    take_in([late], desk.spool, desk.ledger)
    wait_until(lambda: desk.after(4).state is CaseState.COMPLETE, 10, "the case to close")
    row = desk.after(5)
    assert row.closed_by is ClosedBy.COMPLETE
    assert row.reason.endswith("as many images as the PACS counts")


def test_a_pacs_that_is_away_holds_nothing_up(small_study: WrittenStudy, desk: Desk) -> None:
    desk.started(source=Source(transport="qido", url="http://127.0.0.1:1/dicom-web", poll_s=0.1))
    take_in(paths_of(small_study), desk.spool, desk.ledger)
    assert desk.after(30).state is CaseState.RECEIVING
    assert desk.after(61).closed_by is ClosedBy.QUIET


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_set_in_mid_transfer_neither_closes_a_case_nor_strands_it(
    small_study: WrittenStudy, desk: Desk, hours: int
) -> None:
    desk.started(Assemble(settle_s=300.0, quiet_s=3000.0, deadline_s=30000.0))
    take_in(paths_of(small_study, "flair", "t1", "t1gd"), desk.spool, desk.ledger)
    assert desk.after(100).state is CaseState.RECEIVING
    take_in(paths_of(small_study, "t2"), desk.spool, desk.ledger)
    with desk.ledger.engine.begin() as connection:  # as the receiver stamps it with such a clock
        stamp = tables.case.c.last_received_at + 3600.0 * hours
        connection.execute(tables.case.update().values(last_received_at=stamp))
    assert desk.after(1).state is CaseState.RECEIVING
    assert desk.after(200).state is CaseState.RECEIVING
    row = desk.after(500)
    assert (row.state, row.closed_by) == (CaseState.COMPLETE, ClosedBy.COMPLETE)


def test_a_node_that_was_down_waits_for_what_its_sender_could_not_send(
    small_study: WrittenStudy, desk: Desk
) -> None:
    take_in(paths_of(small_study, "flair", "t1", "t1gd"), desk.spool, desk.ledger)
    desk.clock.ahead_s = 1000.0
    desk.started(Assemble(settle_s=300.0, quiet_s=600.0, deadline_s=3600.0))
    assert desk.after(1).state is CaseState.RECEIVING
    assert desk.after(700).state is CaseState.REJECTED


# -- the operator ---------------------------------------------------------------------------------


def test_an_operator_has_a_case_closed_at_once(small_study: WrittenStudy, desk: Desk) -> None:
    take_in(paths_of(small_study), desk.spool, desk.ledger)
    row = desk.after(0)
    assert row.state is CaseState.RECEIVING
    desk.ledger.request_completion(row.case_id)
    row = desk.after(0)
    assert (row.state, row.closed_by) == (CaseState.COMPLETE, ClosedBy.OPERATOR)


def test_an_operator_who_closes_too_early_is_told_what_is_missing_and_more_may_come(
    small_study: WrittenStudy, desk: Desk
) -> None:
    take_in(paths_of(small_study, "flair", "t1", "t1gd"), desk.spool, desk.ledger)
    first = desk.after(0)
    desk.ledger.request_completion(first.case_id)
    row = desk.after(0)
    assert (row.state, row.code) == (CaseState.REJECTED, "STUDY_SEQUENCE_MISSING")
    take_in(paths_of(small_study, "t2"), desk.spool, desk.ledger)
    row = desk.after(4)
    assert (row.state, row.revision) == (CaseState.COMPLETE, 2)
    assert desk.ledger.case(first.case_id).state is CaseState.SUPERSEDED


def test_an_operator_chooses_between_two_equal_series_and_the_choice_stays(
    small_study: WrittenStudy, desk: Desk, tmp_path: Path
) -> None:
    twice = repeated(small_study, "t2", tmp_path / "t2")
    take_in([*paths_of(small_study), *twice], desk.spool, desk.ledger)
    row = desk.after(61)
    assert (row.state, row.code) == (CaseState.REJECTED, "STUDY_SEQUENCE_AMBIGUOUS")
    mine = series_of(small_study, "t2")
    for wanted in (mine, f"{mine}.1"):
        if row.state is CaseState.COMPLETE:
            desk.ledger.end_case(row.case_id, _cancelled())
        chosen = {"t2": SeriesKey(wanted)}
        desk.ledger.choose_series(row.case_id, chosen, roles=MANIFEST.roles)
        desk.ledger.reopen(row.case_id)
        row = desk.after(61)
        assert row.state is CaseState.COMPLETE, row.sentence
        assert desk.chosen(row)["t2"] == wanted
    extra = phantoms.edited(
        small_study.files.paths["t1"][:1], tmp_path / "more", _as_another_series
    )
    take_in(extra, desk.spool, desk.ledger)
    later = desk.after(61)
    assert later.revision == 2
    assert desk.ledger.choices(later.case_id) == {"t2": SeriesKey(f"{mine}.1")}
    assert (later.state, later.code) == (CaseState.CANCELLED, "CASE_NOTHING_NEW")


def test_a_purged_study_that_is_sent_again_gives_no_second_result(
    small_study: WrittenStudy, desk: Desk
) -> None:
    take_in(small_study.interleaved, desk.spool, desk.ledger)
    first = desk.after(4)
    for state in (CaseState.ASSEMBLED, CaseState.SEGMENTED, CaseState.ENCODED, CaseState.DELIVERED):
        desk.ledger.move(first.case_id, state)
    assert desk.ledger.purge(first.case_id)
    desk.spool.delete(desk.ledger.doomed())
    assert list(desk.spool.instance_files()) == []
    take_in(small_study.interleaved, desk.spool, desk.ledger)
    again = desk.after(61)
    assert (again.revision, again.state) == (2, CaseState.CANCELLED)
    assert again.code == "CASE_NOTHING_NEW"
    assert desk.ledger.case(first.case_id).state is CaseState.DELIVERED


def _cancelled() -> Ending:
    return ending_of(CancelledByOperatorError(), CaseState.CANCELLED)


def _as_another_series(index: int, ds: Dataset) -> None:
    del index
    ds.SeriesInstanceUID += ".9"
    ds.SOPInstanceUID += ".9"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID


def test_a_late_series_opens_a_revision_with_what_is_better(
    small_study: WrittenStudy, desk: Desk
) -> None:
    take_in(paths_of(small_study, "flair", "t1", "t1gd"), desk.spool, desk.ledger)
    assert desk.after(61).state is CaseState.REJECTED
    take_in(paths_of(small_study, "t2"), desk.spool, desk.ledger)
    row = desk.after(4)
    assert (row.state, row.revision) == (CaseState.COMPLETE, 2)
    assert desk.chosen(row)["t2"] == series_of(small_study, "t2")


def test_a_rule_for_a_role_that_nobody_knows_stops_the_node(desk: Desk) -> None:
    rule = SeriesRule.model_validate(
        {"name": "typo", "role": "t1ce", "where": {"EchoTime": {"at_least": 1}}}
    )
    with pytest.raises(ConfigError, match="'typo': role is none of flair, t1, t1gd, t2, other"):
        desk.started(WAITING.model_copy(update={"series_rules": (rule,)}))
