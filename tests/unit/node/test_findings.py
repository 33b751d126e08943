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


def test_findings_come_back_as_they_were_kept(spool: Spool) -> None:
    content = {"notes": ["A_CODE: a sentence"], "brain_ml": 1500.0}
    findings.write(content, CASE, spool)
    assert findings.read(CASE, spool) == content


def test_a_case_without_findings_has_none(spool: Spool) -> None:
    assert findings.read(CASE, spool) == {}


def test_a_note_begins_with_its_code() -> None:
    assert findings.code_of("A_CODE: found 3: expected 2") == "A_CODE"
