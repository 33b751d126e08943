"""The one way in: an encoded data set becomes a file of the spool and a row of the ledger.

The data set is kept byte for byte as it came. An `Intake` returns from `keep` only when the file,
its name and its row would survive a power cut; whoever answers the peer may then say success.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from node.cases import CommitmentReport, ReceivedInstance, Sender
from node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import (
    InstanceMismatchError,
    InstanceTooLargeError,
    NodeError,
    SpoolUnwritableError,
)
from node.ledger import Ledger
from node.receive.commit import GroupCommit, in_the_ledger, on_the_spool
from node.receive.dataset import Identifiers, read_identifiers
from node.rows import CommitmentRow
from node.spool import Spool

_PREAMBLE = bytes(128) + b"DICM"
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
_NO_FILE = -1
_HELD_BYTES = 2**18
_MOST_NOTED = 10_000

_META_VERSION = b"\0\1"
_SHORT_META = struct.Struct("<HH2sH")
_LONG_META = struct.Struct("<HH2sHL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a peer says it is about to send; the UIDs are checked ones.

    `calling_ae_title` holds at most 16 printable ASCII characters. `study_instance_uid` is that of
    the request where it names one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    study_instance_uid: str | None = None
    called_ae_title: str = ""
    calling_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became durable; not new is what was there already, byte for byte."""

    study_instance_uid: str
    is_new: bool


def file_meta(offer: Offer) -> bytes:
    """Return preamble, prefix and File Meta Information for an offered instance.

    References
    ----------
    DICOM PS3.10 7.1: always Explicit VR Little Endian.
    """
    elements = _LONG_META.pack(2, 0x0001, b"OB", 0, len(_META_VERSION)) + _META_VERSION
    for number, vr, value in (
        (0x0002, b"UI", offer.sop_class_uid),
        (0x0003, b"UI", offer.sop_instance_uid),
        (0x0010, b"UI", offer.transfer_syntax_uid),
        (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        (0x0016, b"AE", offer.calling_ae_title),
    ):
        encoded = value.encode("ascii")
        encoded += (b"\0" if vr == b"UI" else b" ") * (len(encoded) % 2)
        elements += _SHORT_META.pack(2, number, vr, len(encoded)) + encoded
    group_length = _SHORT_META.pack(2, 0, b"UL", 4) + struct.pack("<L", len(elements))
    return _PREAMBLE + group_length + elements


class IncomingInstance:
    """One data set on its way into the spool; `Intake.begin` makes it.

    Parameters
    ----------
    offer : Offer
        What it claims to be.
    part : Path
        Temporary file, which does not exist yet.
    limit_bytes : int
        Largest data set that is taken, encoded and inflated alike.
    """

    def __init__(self, offer: Offer, part: Path, *, limit_bytes: int) -> None:
        self.offer = offer
        self.byte_count = 0
        self._part, self._is_kept = part, False
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256(offer.transfer_syntax_uid.encode("ascii"))
        self._held = bytearray(file_meta(offer))
        self._start = len(self._held)
        self._file = _NO_FILE
        with on_the_spool:
            self._file = os.open(part, _NEW_FILE, 0o666)

    def write(self, fragment: bytes | memoryview) -> None:
        """Append the next bytes of the data set.

        Raises
        ------
        InstanceTooLargeError
            The data set exceeds the limit.
        SpoolUnwritableError
            The file system refuses, for instance because it is full.
        """
        self.byte_count += len(fragment)
        if self.byte_count > self._limit_bytes:
            raise InstanceTooLargeError(limit_bytes=self._limit_bytes)
        self._digest.update(fragment)
        if len(self._held) + len(fragment) <= _HELD_BYTES:
            self._held += fragment
        else:
            self._flush(fragment)

    def _flush(self, further: bytes | memoryview = b"") -> None:
        """Write what is held, and more."""
        with on_the_spool, memoryview(self._held) as held:
            for piece in (held, further):
                at = 0
                while at < len(piece):
                    at += os.write(self._file, piece[at:])
        self._held.clear()

    def finish(self) -> tuple[Identifiers, str]:
        """Return identifiers and digest of the data set, which is whole; it is not synced yet.

        Raises
        ------
        InstanceUnreadableError, InstanceTooLargeError
            See `read_identifiers`.
        InstanceMismatchError
            The data set is another instance than the one that was offered.
        SpoolUnwritableError
            The file system refuses.
        """
        identifiers = self._identifiers()
        if identifiers.sop_class_uid != self.offer.sop_class_uid:
            raise InstanceMismatchError(keyword="SOPClassUID")
        if identifiers.sop_instance_uid != self.offer.sop_instance_uid:
            raise InstanceMismatchError(keyword="SOPInstanceUID")
        if self.offer.study_instance_uid not in (None, identifiers.study_instance_uid):
            raise InstanceMismatchError(keyword="StudyInstanceUID")
        return identifiers, self._digest.hexdigest()

    def _identifiers(self) -> Identifiers:
        """Write what is held and walk through the data set, in memory where all of it is there."""
        read = partial(
            read_identifiers,
            transfer_syntax_uid=self.offer.transfer_syntax_uid,
            start=self._start,
            limit_bytes=self._limit_bytes,
        )
        if len(self._held) == self._start + self.byte_count:
            identifiers = read(bytes(self._held))
            self._flush()
            return identifiers
        self._flush()
        with on_the_spool, mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as data:
            return read(data)

    def keep(self, spool: Spool, relative: str) -> Path:
        """Give the file its name, sync it and return its folder, whose sync remains to be done.

        The name comes first: journalling file systems then make file and name durable in one go,
        and a file that a power cut has torn under its name has no row.
        """
        with on_the_spool:
            folder = spool.keep_instance(self._part, relative)
            self._is_kept = True
            os.fsync(self._file)
            self._close()
        return folder

    def discard(self) -> None:
        """Leave nothing behind; nothing happens to an instance that was kept."""
        with suppress(OSError):
            self._close()
        if self._is_kept:
            return
        with suppress(OSError):  # a file that cannot be removed now is swept at the next start
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        """Close the file, once: its number may be another's by then."""
        file, self._file = self._file, _NO_FILE
        if file != _NO_FILE:
            os.close(file)


class Intake:
    """Where every received instance goes, whichever door it came through.

    Parameters
    ----------
    spool : Spool
        Takes the files.
    ledger : Ledger
        Takes the rows.
    model_id : str
        The model whose cases the instances open.
    limit_bytes : int
        Largest data set that is taken.
    door : str
        Begins the names of temporary files: each door sweeps its own.
    """

    def __init__(
        self, spool: Spool, ledger: Ledger, *, model_id: str, limit_bytes: int, door: str = ""
    ) -> None:
        self._spool, self._ledger, self._model_id = spool, ledger, model_id
        self.limit_bytes, self._door = limit_bytes, door
        self._noted: set[tuple[str, Sender]] = set()
        self._commit = GroupCommit(spool, ledger, model_id=model_id)
        self._turn, self.refused = threading.Lock(), dict[str, int]()

    def count(self, refusal: NodeError) -> None:
        """Note that a door has turned something away; `refused` says how often, by code."""
        with self._turn:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1

    def check_space(self) -> None:
        """Refuse what there is no room for.

        Raises
        ------
        SpoolFullError
            Less than the floor is free, or the quota is used up.
        SpoolUnwritableError, LedgerUnavailableError
            It cannot be told.
        """
        with on_the_spool, in_the_ledger:
            self._spool.check_space()

    def begin(self, offer: Offer) -> IncomingInstance:
        """Return a place for an instance's data set.

        Raises
        ------
        SpoolFullError, LedgerUnavailableError
            See `check_space`.
        SpoolUnwritableError
            The file system refuses.
        """
        return IncomingInstance(offer, self.new_part(), limit_bytes=self.limit_bytes)

    def new_part(self) -> Path:
        """Return the name of a new temporary file; raises what `check_space` does."""
        self.check_space()
        return self._spool.new_part(self._door)

    def keep(self, incoming: IncomingInstance) -> Kept:
        """Make a whole data set durable.

        That is file, name and row; an instance that is known stays as it is. Whatever is raised,
        no temporary file is left and the ledger is as before.

        Raises
        ------
        InstanceConflictError
            Its SOP Instance UID is stored with other content.
        LedgerUnavailableError, SpoolUnwritableError
            The database or the file system refuses; trying again later may help.
        InstanceUnreadableError, InstanceMismatchError, InstanceTooLargeError
            See `IncomingInstance.finish`.
        """
        try:
            identifiers, sha256 = incoming.finish()
            instance = self._instance(incoming, identifiers, sha256)
            self._note_sender(incoming.offer, identifiers.study_instance_uid)
            try:
                folder = incoming.keep(self._spool, instance.path)
            except SpoolUnwritableError:
                self._commit.remove(instance)
                raise
            is_new = self._commit.keep(instance, folder)
        finally:
            incoming.discard()
        return Kept(study_instance_uid=identifiers.study_instance_uid, is_new=is_new)

    def _note_sender(self, offer: Offer, study_instance_uid: str) -> None:
        """See to it that the ledger knows who sends a study, before an instance of it is kept."""
        sender = Sender(
            calling_ae_title=offer.calling_ae_title,
            called_ae_title=offer.called_ae_title,
            calling_address=offer.calling_address,
        )
        if (study_instance_uid, sender) in self._noted:
            return
        with in_the_ledger:
            self._ledger.note_sender(study_instance_uid, sender)
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        self._noted.add((study_instance_uid, sender))

    def released(self, study_instance_uids: Collection[str]) -> None:
        """Note that a peer which brought instances of these studies has properly hung up.

        Raises
        ------
        LedgerUnavailableError
            The database refuses; the hint is lost, and the quiet period decides without it.
        """
        with in_the_ledger:
            self._ledger.record_release(
                study_instance_uids, model_id=self._model_id, released_at=datetime.now(UTC)
            )

    def reported(self, report: CommitmentReport, *, ae_title: str) -> CommitmentRow:
        """Make a report of storage commitment durable; return the transaction that it answers.

        Raises
        ------
        ReportInvalidError, ReporterUnknownError
            This node, or this peer, was not asked.
        LedgerUnavailableError
            The database refuses; the sender may try again.
        """
        with in_the_ledger:
            return self._ledger.save_report(report, ae_title=ae_title)

    def _instance(
        self, incoming: IncomingInstance, identifiers: Identifiers, sha256: str
    ) -> ReceivedInstance:
        offer = incoming.offer
        return ReceivedInstance(
            study_instance_uid=identifiers.study_instance_uid,
            series_instance_uid=identifiers.series_instance_uid,
            sop_class_uid=identifiers.sop_class_uid,
            sop_instance_uid=identifiers.sop_instance_uid,
            transfer_syntax_uid=offer.transfer_syntax_uid,
            calling_ae_title=offer.calling_ae_title,
            path=self._spool.instance_name(
                study_instance_uid=identifiers.study_instance_uid,
                sop_instance_uid=identifiers.sop_instance_uid,
                sha256=sha256,
            ),
            byte_count=incoming.byte_count,
            sha256=sha256,
            received_at=datetime.now(UTC),
        )
