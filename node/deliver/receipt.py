"""The proof that a destination holds an object, whichever way it went there."""

from __future__ import annotations

from datetime import UTC, datetime

from node.cases import DeliveryReceipt, EncodedObject
from node.peers import Destination


def receipt_of(
    one: EncodedObject, destination: Destination, status_code: str, attempt: int
) -> DeliveryReceipt:
    """Return the receipt of an object that a destination has just answered for."""
    return DeliveryReceipt(
        case_id=one.case_id,
        destination=destination.name,
        transport=destination.transport,
        sop_instance_uid=one.sop_instance_uid,
        status_code=status_code,
        attempt=attempt,
        delivered_at=datetime.now(UTC),
    )
