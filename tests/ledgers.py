"""Cases in a ledger, taken to any state by the ledger's own ways."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from node.cases import (
    AssembledCase,
    AssembledSeries,
    CaseState,
    ClosedBy,
    EncodedObject,
    Ending,
    ObjectKind,
    ReceivedInstance,
    SeriesDecision,
)
from node.ledger import Ledger
from node.rows import CaseRow

MODEL = "demo@1"
START = datetime(2025, 1, 15, 10, 0, tzinfo=UTC)
REJECTED = Ending(
    state=CaseState.REJECTED, code="GEOM_MISSING_SLICE", sentence="a gap", advice="Send it."
)
FAILED = replace(REJECTED, state=CaseState.FAILED, code="UNFORESEEN")
CANCELLED = replace(REJECTED, state=CaseState.CANCELLED, code="CASE_CANCELLED")
DECISION = SeriesDecision(
    series_instance_uid="1.1",
    description="t2_tirm_tra_dark-fluid",
    sequence="FLAIR",
    role="flair",
    score=0.9,
    reason="inversion time",
    instance_count=2,
    is_whole=True,
)


def instance(
    uid: str, *, study: str = "1", sha256: str = "a" * 64, at: int = 0
) -> ReceivedInstance:
    return ReceivedInstance(
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="SCANNER",
        path=f"instances/{uid}.dcm",
        byte_count=10,
        sha256=sha256,
        received_at=START + timedelta(seconds=at),
    )


def opened(ledger: Ledger, *uids: str, study: str = "1") -> CaseRow:
    for at, uid in enumerate(uids or ("1.1.1",)):
        ledger.record_instance(instance(uid, study=study, at=at), model_id=MODEL)
    return newest(ledger, study)


def newest(ledger: Ledger, study: str = "1") -> CaseRow:
    rows = [row for row in ledger.cases() if row.study_instance_uid == study]
    return max(rows, key=lambda row: row.revision)


def assembled(ledger: Ledger, row: CaseRow) -> AssembledCase:
    one = AssembledSeries(
        series_instance_uid="1.1",
        role="flair",
        instances=tuple(ledger.study_instances(row.study_instance_uid)),
    )
    return AssembledCase(
        case_id=row.case_id,
        study_instance_uid=row.study_instance_uid,
        series=(one,),
        reference_role="flair",
        closed_by=ClosedBy.COMPLETE,
    )


def closed(ledger: Ledger, row: CaseRow) -> CaseRow:
    case = assembled(ledger, row)
    count = len(case.series[0].instances)
    assert ledger.close_case(case, [DECISION], "all sequences whole", seen_instances=count)
    return ledger.case(row.case_id)


def encoded(row: CaseRow, uid: str = "2.25.1") -> EncodedObject:
    return EncodedObject(
        case_id=row.case_id,
        path=f"cases/{row.case_id}/seg.dcm",
        kind=ObjectKind.SEG,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=uid,
        series_instance_uid="2.25.2",
        study_instance_uid=row.study_instance_uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        byte_count=5,
        sha256="b" * 64,
    )


def held(ledger: Ledger, row: CaseRow) -> CaseRow:
    """Take an open case to a result that waits for a person."""
    advanced(ledger, row, CaseState.SEGMENTED)
    ledger.save_result(encoded(row), summary={"notes": []}, held_for=["INPUT_MISSING"])
    return ledger.case(row.case_id)


def advanced(ledger: Ledger, row: CaseRow, to: CaseState) -> CaseRow:
    """Take an open case through the states up to one of them."""
    way = (CaseState.ASSEMBLED, CaseState.SEGMENTED, CaseState.ENCODED, CaseState.DELIVERED)
    closed(ledger, row)
    for state in way[: way.index(to) + 1]:
        ledger.move(row.case_id, state)
    return ledger.case(row.case_id)
