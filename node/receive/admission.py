"""Who opens an association, and whether it is accepted: by room, number and rate.

References
----------
DICOM PS3.8 9.3.4 (A-ASSOCIATE-RJ: result, source, reason).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from node.door_errors import AssociationLimitError, AssociationRateError
from node.errors import NodeError
from node.rates import Rates
from node.reports import PUSH_MODEL

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    from node.receive.instance import Intake
    from node.settings import Receive

TEMPORARY_CONGESTION: Final = (0x02, 0x03, 0x01)
LOCAL_LIMIT_EXCEEDED: Final = (0x02, 0x03, 0x02)
_VERIFICATION: Final = "1.2.840.10008.1.1"
_AE_TITLE_LENGTH: Final = 16


class Admission:
    """Says why an association that is asked for is turned away.

    Parameters
    ----------
    receive : Receive
        Holds the limits of each address.
    intake : Intake
        Knows whether there is room.
    """

    def __init__(self, receive: Receive, intake: Intake) -> None:
        self._most, self._intake = receive.max_associations_per_address, intake
        self._rates = Rates(receive.associations_per_minute)

    def count(self, refusal: NodeError) -> None:
        """Note that an association was turned away."""
        self._intake.count(refusal)

    def refusal(self, assoc: Association) -> tuple[NodeError, tuple[int, int, int]] | None:
        """Return why it is turned away and how that is said; all of it passes.

        Every sender's own retry handles a transient rejection like A700, and nobody sends a
        thousand images to have each refused. Without room those may come in that store nothing.
        """
        address = str(assoc.requestor.address or "")
        if self._rates.is_over(address):
            return AssociationRateError(limit=self._rates.per_minute), TEMPORARY_CONGESTION
        own = [one for one in assoc.ae.active_associations if one.requestor.address == address]
        if self._most and len(own) > self._most:
            return AssociationLimitError(limit=self._most), LOCAL_LIMIT_EXCEEDED
        request = assoc.requestor.primitive
        offered = request.presentation_context_definition_list if request is not None else []
        if {one.abstract_syntax for one in offered} <= {_VERIFICATION, PUSH_MODEL}:
            return None
        try:
            self._intake.check_space()
        except NodeError as error:
            return error, LOCAL_LIMIT_EXCEEDED
        return None


def calling_ae_title(assoc: Association) -> str:
    """Return who opened an association."""
    return assoc.requestor.ae_title.strip()[:_AE_TITLE_LENGTH]


def called_ae_title(assoc: Association) -> str:
    """Return by which title we were called."""
    asked = cast("A_ASSOCIATE", assoc.requestor.primitive)
    return asked.called_ae_title.strip()[:_AE_TITLE_LENGTH]
