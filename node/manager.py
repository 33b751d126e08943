"""The worklist of another system by UPS-RS, whose work items the node claims and performs.

What is claimed is mirrored in the ledger before the manager is asked, so that a process that dies
in between finds it again; its Transaction UID is derived, so that asking twice is asking once.

References
----------
DICOM PS3.18 11.6 (Update), 11.7 (Change State), 11.9 (Search); IHE RAD AIW-I, task performer.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from node.deliver import stow_client
from node.peers import Destination
from node.receive.dataset import is_uid
from node.work_errors import WorkitemConflictError, WorkitemExistsError
from node.workitems import Workitem, Worklist
from node.worksteps import SOP_INSTANCE, STATE, TRANSACTION, Item, StepState, value_of

_JSON: Final = "application/dicom+json"
_HEADERS: Final = {"Accept": _JSON, "Content-Type": _JSON}
_MOST: Final = 200


class ManagerWorklist:
    """Work items of a manager, with the words of `Worklist`.

    Parameters
    ----------
    peer : Destination
        The manager.
    mirror : Worklist
        What is claimed there, as the ledger knows it.
    """

    def __init__(self, peer: Destination, mirror: Worklist) -> None:
        self._peer, self._mirror = peer, mirror
        self._root = f"{peer.url.rstrip('/')}/workitems"

    def search(self, keys: Mapping[str, str]) -> list[Workitem]:
        """Return the manager's work items whose attributes have these values.

        Raises
        ------
        PeerUnavailableError, PeerRefusedError
            It gives no usable answer, as of every method that asks it.
        """
        with stow_client.open_session(self._peer) as session:
            answer = session.get(
                self._root,
                params={**keys, "limit": str(_MOST)},
                headers=_HEADERS,
                timeout=self._peer.timeout_s,
            )
            answer.raise_for_status()
            found = answer.json() if answer.content else []
            items = [one for one in found if is_uid(value_of(one, SOP_INSTANCE))]
        return [_scheduled(one) for one in items if value_of(one, STATE) == StepState.SCHEDULED]

    def change(
        self, uid: str, wanted: StepState, transaction_uid: str, *, performer: str | None = None
    ) -> bool:
        """Move a work item there, and its mirror.

        Raises
        ------
        WorkitemConflictError
            The manager refuses it: somebody else has claimed it.
        """
        if wanted is StepState.IN_PROGRESS:
            self._note(uid, transaction_uid, performer)
        asked = {
            STATE: {"vr": "CS", "Value": [wanted.value]},
            TRANSACTION: {"vr": "UI", "Value": [transaction_uid]},
        }
        does = self._ask("PUT", f"{uid}/state", asked)
        if wanted is StepState.IN_PROGRESS:
            if not does:  # claimed already, by us or by somebody else: then this is refused, too
                self.update(uid, {}, transaction_uid)
            return does
        if not does:
            raise WorkitemConflictError(status="HTTP 409", reason="the manager refuses it")
        return self._mirror.change(uid, wanted, transaction_uid)

    def update(self, uid: str, change: Item, transaction_uid: str) -> None:
        """Change what a work item says there, and its mirror; raises as `change`."""
        told = {**change, TRANSACTION: {"vr": "UI", "Value": [transaction_uid]}}
        if not self._ask("POST", f"{uid}?{transaction_uid}", told):
            self._mirror.drop(uid)
            raise WorkitemConflictError(status="HTTP 409", reason="the manager refuses it")
        self._mirror.update(uid, change, transaction_uid)

    def performed_by(self, performer: str) -> list[Workitem]:
        """Return what is claimed there and not ended."""
        return self._mirror.performed_by(performer)

    def _note(self, uid: str, transaction_uid: str, performer: str | None) -> None:
        """Mirror what is about to be claimed; once."""
        try:
            content = self._content(uid)
            kept = {tag: one for tag, one in content.items() if tag not in (STATE, TRANSACTION)}
            self._mirror.create(uid, kept)
            self._mirror.change(uid, StepState.IN_PROGRESS, transaction_uid, performer=performer)
        except (WorkitemExistsError, WorkitemConflictError):
            return  # by an earlier process that did not live to see the answer

    def _content(self, uid: str) -> Item:
        with stow_client.open_session(self._peer) as session:
            address = f"{self._root}/{uid}"
            answer = session.get(address, headers=_HEADERS, timeout=self._peer.timeout_s)
            answer.raise_for_status()
            found = answer.json()
            one: Item = dict(found[0] if isinstance(found, list) else found)
            return one

    def _ask(self, method: str, address: str, content: Item) -> bool:
        """Return whether the manager does as it is asked; False for a conflict."""
        with stow_client.open_session(self._peer) as session:
            answer = session.request(
                method,
                f"{self._root}/{address}",
                json=[content],
                headers=_HEADERS,
                timeout=self._peer.timeout_s,
            )
            if answer.status_code in (HTTPStatus.CONFLICT, HTTPStatus.BAD_REQUEST):
                return False
            answer.raise_for_status()
        return True


def _scheduled(content: dict[str, Any]) -> Workitem:
    return Workitem(
        uid=value_of(content, SOP_INSTANCE),
        state=StepState.SCHEDULED,
        transaction_uid=None,
        content=content,
        performer=None,
        is_cancel_requested=False,
    )
