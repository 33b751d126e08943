"""What a notice says: a few facts, none of them the patient's."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Final

from node.outbox import Notice

TEST: Final = "test"


def test_notice() -> Notice:
    """Return a notice of nothing, to be tried with."""
    return Notice(
        notification_id=uuid.uuid4().hex,
        event=TEST,
        case_id=None,
        code=None,
        happened_at=datetime.now(UTC),
    )


def facts_of(notice: Notice, page_url: str) -> dict[str, str | int]:
    """Return what is told; a fact that there is none of is left out."""
    link = f"{page_url.rstrip('/')}/cases/{notice.case_id}" if page_url and notice.case_id else None
    told = {
        "id": notice.notification_id,
        "event": notice.event,
        "case_id": notice.case_id,
        "code": notice.code,
        "destination": notice.destination,
        "count": notice.count if notice.count > 1 else None,
        "time": notice.happened_at.isoformat(timespec="seconds"),
        "link": link,
    }
    return {name: fact for name, fact in told.items() if fact is not None}
