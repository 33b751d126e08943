"""What happened to a case as lines for a file: what was tried, by when, and what came of it.

Nothing of it names the patient: no description of a series and no UID is in it, and the sentences
are the project's own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from node.reading import LedgerReader
from node.rows import CaseRow


def lines(ledger: LedgerReader, row: CaseRow) -> list[dict[str, Any]]:
    """Return one mapping for each event, by time, then one on how the case stands."""
    events = [_line(row.opened_at, "case.opened", model_id=row.model_id, revision=row.revision)]
    if row.closed_at is not None and row.closed_by is not None:
        events.append(_line(row.closed_at, "case.closed", by=row.closed_by.value))
    for one in ledger.attempts(row.case_id):
        what = {"stage": one.stage.value, "destination": one.destination}
        events.append(_line(one.started_at, "attempt.begun", **what))
        if one.ended_at is not None:
            ended = {"outcome": one.outcome, "code": one.code, "sentence": one.sentence}
            next_at = {"next_at": one.next_at}
            events.append(_line(one.ended_at, "attempt.ended", **what, **ended, **next_at))
    for receipt in ledger.receipts(row.case_id):
        what = {"destination": receipt.destination, "status_code": receipt.status_code}
        events.append(_line(receipt.delivered_at, "object.delivered", **what))
        if receipt.committed_at is not None:
            events.append(_line(receipt.committed_at, "object.committed", **what))
    events.sort(key=lambda line: line["at"])
    standing = _line(
        row.updated_at,
        "case.stands",
        state=row.state.value,
        run=row.run,
        code=row.code,
        sentence=row.sentence,
        notes=(row.summary or {}).get("notes"),
    )
    return [{**line, "case_id": row.case_id} for line in (*events, standing)]


def _line(at: datetime, event: str, **values: object) -> dict[str, Any]:
    return {"at": at, "event": event, **{k: one for k, one in values.items() if one is not None}}
