"""A cancelled case is left at once: the engine stops, the next case starts, nothing is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from converters.volume import LabelMap
from inference.errors import PredictionStoppedError
from node import logs
from node.cases import AssembledCase, CaseState, Stage
from node.disposition import ending_of
from node.errors import CancelledByOperatorError
from node.ledger import Ledger
from node.pipeline import Segmenter, Stop
from node.rows import AttemptRow, CaseRow
from node.spool import Spool
from tests.phantoms import WrittenStudy
from tests.stages import bright_is_tumour, close, parts, run_all, take_in
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

SLOW_S = 0.8  # of `tests.poison`
CANCELLED = ending_of(CancelledByOperatorError(), CaseState.CANCELLED)


@pytest.fixture
def closed(small_study: WrittenStudy, spool: Spool, ledger: Ledger) -> CaseRow:
    take_in(small_study.interleaved, spool, ledger)
    return close(spool, ledger)


def _stopped_by(*commands: Callable[[str], object]) -> Segmenter:
    """Return a segmenter in whose midst a case gets commands, and which looks for them."""

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        assert not stop()
        for command in commands:
            command(case.case_id)
        wait_until(stop, 5.0, "the computation to be stopped")
        raise PredictionStoppedError(windows_done=3, window_count=8)

    return _segment


def _segment_attempt(ledger: Ledger, row: CaseRow) -> AttemptRow:
    (attempt,) = [one for one in ledger.attempts(row.case_id) if one.stage is Stage.SEGMENT]
    return attempt


def test_a_computation_is_stopped_when_its_case_is_cancelled(
    closed: CaseRow, spool: Spool, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(role="test", strict=True)
    segmenter = _stopped_by(lambda case_id: ledger.end_case(case_id, CANCELLED))
    assert run_all(replace(parts(spool, ledger), segmenter=segmenter), closed.case_id) == []
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.CANCELLED, "CASE_CANCELLED")
    attempt = _segment_attempt(ledger, row)
    assert (attempt.outcome, attempt.code) == ("cancelled", "PREDICTION_STOPPED")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (stopped,) = [line for line in printed if line["event"] == "stage.stopped"]
    assert stopped["sentence"] == "the computation was stopped after 3 of 8 windows"
    assert "error" not in {line["level"] for line in printed}


def test_a_computation_is_stopped_when_its_case_was_started_again(
    closed: CaseRow, spool: Spool, ledger: Ledger
) -> None:
    segmenter = _stopped_by(lambda case_id: ledger.end_case(case_id, CANCELLED), ledger.reopen)
    assert run_all(replace(parts(spool, ledger), segmenter=segmenter), closed.case_id) == []
    row = ledger.case(closed.case_id)
    assert (row.state, row.run, row.code) == (CaseState.ASSEMBLED, 2, None)


def test_labels_of_a_case_that_was_cancelled_meanwhile_count_for_nothing(
    closed: CaseRow, spool: Spool, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        ledger.end_case(case.case_id, CANCELLED)
        return bright_is_tumour(spool)(case, stop)

    assert run_all(replace(parts(spool, ledger), segmenter=_segment), closed.case_id) == []
    row = ledger.case(closed.case_id)
    assert (row.state, row.code) == (CaseState.CANCELLED, "CASE_CANCELLED")
    attempt = _segment_attempt(ledger, row)
    assert (attempt.outcome, attempt.code) == ("cancelled", "CASE_OVERTAKEN")
    assert "error" not in capsys.readouterr().out
