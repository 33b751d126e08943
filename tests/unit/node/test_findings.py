"""What the segment stage keeps beside the label map."""

from __future__ import annotations

from node import findings
from node.cases import AssembledCase, ClosedBy
from node.spool import Spool

CASE = AssembledCase(
    case_id="c-1",
    study_instance_uid="2.25.1",
    series=(),
    reference_role="t1gd",
    closed_by=ClosedBy.COMPLETE,
)


def test_notes_come_back_as_they_were_kept(spool: Spool) -> None:
    findings.write({"notes": ["A_CODE: a sentence"], "brain_ml": 1500.0}, CASE, spool)
    assert findings.notes(CASE, spool) == ["A_CODE: a sentence"]


def test_a_case_without_findings_has_no_notes(spool: Spool) -> None:
    assert findings.notes(CASE, spool) == []
