"""STOW-RS without HTTP: the parts of a request become instances by the one way in.

Each part is a DICOM file (PS3.10) that is written to the spool as it arrives, nothing is decoded;
a part that is refused is read to its end and forgotten, and the request goes on.

References
----------
DICOM PS3.18 10.5 (Store transaction).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from node import logs
from node.errors import InstanceUnreadableError, NodeError
from node.receive import accepted, part10
from node.receive.dataset import checked_uid
from node.receive.instance import IncomingInstance, Intake, Offer
from node.receive.multipart import MEDIA_TYPE
from node.receive.statuses import status_of

CALLING: Final = "STOW-RS"
"""The calling AE title of instances whose sender has no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part; the UIDs are empty where it does not say them.

    Without an error it is durable; not new is what was stored before, byte for byte.
    """

    sop_class_uid: str
    sop_instance_uid: str
    error: NodeError | None
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends, and the Study Instance UID of the request's address where that has one."""

    calling_ae_title: str = CALLING
    study_instance_uid: str | None = None


class Part:
    """A file that arrives; `content` is why it is refused from the beginning, if it is."""

    def __init__(self, intake: Intake, sender: Sender, content: NodeError | None) -> None:
        self._intake, self._sender = intake, sender
        self._head = bytearray()
        self._content: IncomingInstance | NodeError | None = content
        self.sop_class_uid = self.sop_instance_uid = ""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes; those of a refused file are forgotten."""
        try:
            if self._content is None:
                self._begin(fragment)
            elif isinstance(self._content, IncomingInstance):
                self._content.write(fragment)
        except NodeError as error:
            self.discard()
            self._content = error

    def _begin(self, fragment: memoryview) -> None:
        self._head += fragment
        if len(self._head) < part10.head_length(self._head):
            return
        meta, start = part10.read_meta(self._head)
        content = self._intake.begin(self._offer(meta))
        self._content = content
        content.write(bytes(self._head[start:]))
        self._head.clear()

    def _offer(self, meta: dict[int, bytes]) -> Offer:
        uids = [
            checked_uid(meta.get(element, b""), keyword)
            for element, keyword in (
                (part10.SOP_CLASS_UID, "MediaStorageSOPClassUID"),
                (part10.SOP_INSTANCE_UID, "MediaStorageSOPInstanceUID"),
                (part10.TRANSFER_SYNTAX_UID, "TransferSyntaxUID"),
            )
        ]
        self.sop_class_uid, self.sop_instance_uid, syntax = uids
        accepted.check(self.sop_class_uid, syntax)
        return Offer(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=syntax,
            calling_ae_title=self._sender.calling_ae_title,
            study_instance_uid=self._sender.study_instance_uid,
        )

    def end(self) -> tuple[Outcome, str]:
        """Make the file durable where nothing speaks against it; return its study as well."""
        content, study, is_new = self._content, "", False
        error = content if isinstance(content, NodeError) else None
        if content is None:
            error = InstanceUnreadableError(reason="it is no DICOM file")
        elif isinstance(content, IncomingInstance):
            try:
                kept = self._intake.keep(content)
                study, is_new = kept.study_instance_uid, kept.is_new
            except NodeError as refusal:
                error = refusal
        outcome = Outcome(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            error=error,
            is_new=is_new,
        )
        return outcome, study

    def discard(self) -> None:
        """Leave no temporary file behind."""
        if isinstance(self._content, IncomingInstance):
            self._content.discard()


class StoreRequest:
    """One request; its methods are called one after the other, `close` at any time.

    Parameters
    ----------
    intake : Intake
        Takes the instances.
    sender : Sender
        Whose they are.
    """

    def __init__(self, intake: Intake, sender: Sender) -> None:
        self._intake, self._sender = intake, sender
        self._turn = threading.Lock()
        self._part: Part | None = None
        self._studies: set[str] = set()
        self.outcomes: list[Outcome] = []

    def begin(self, headers: dict[bytes, bytes]) -> None:
        """Take the headers of the next part."""
        refusal = None
        if media_type_of(headers, MEDIA_TYPE) != MEDIA_TYPE:
            refusal = InstanceUnreadableError(reason="its part is not application/dicom")
        with self._turn:
            self._part = Part(self._intake, self._sender, refusal)

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the part."""
        with self._turn:
            if self._part is not None:
                self._part.write(fragment)

    def end(self) -> None:
        """Make the part durable or refuse it."""
        with self._turn:
            part, self._part = self._part, None
            if part is None:
                return
            outcome, study = part.end()
        self._note(outcome, study)

    def _note(self, outcome: Outcome, study: str) -> None:
        self.outcomes.append(outcome)
        if outcome.error is None:
            self._studies.add(study)
        else:
            self._intake.count(outcome.error)
            _log(outcome.error)

    def finish(self) -> None:
        """Say that the sender is through with its studies."""
        if not self._studies:
            return
        try:
            self._intake.released(self._studies)
        except NodeError as error:
            logs.get().warning("release.lost", code=error.code, sentence=str(error))

    def close(self) -> None:
        """Forget what has not arrived whole."""
        with self._turn:
            if self._part is not None:
                self._part.discard()
                self._part = None


def media_type_of(headers: dict[bytes, bytes], default: bytes) -> bytes:
    """Return the media type of a part without its parameters."""
    return headers.get(b"content-type", default).partition(b";")[0].strip().lower()


def _log(error: NodeError) -> None:
    logs.get().warning(
        "instance.refused",
        code=error.code,
        sentence=str(error),
        status=f"0x{status_of(error):04X}",
    )
