"""What becomes of a data set once its bytes are here: file, name, row, or nothing at all."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import (
    InstanceConflictError,
    InstanceMismatchError,
    InstanceTooLargeError,
    InstanceUnreadableError,
    LedgerUnavailableError,
    SpoolFullError,
    SpoolUnwritableError,
)
from node.ledger import Ledger
from node.receive.instance import IncomingInstance, Intake, Offer
from node.spool import Spool
from tests.doors import encoded, make_instance
from tests.full_disks import largest_file_bytes

_MODEL_ID = "intake@1"
_LIMIT = 2**22


@pytest.fixture
def intake(spool: Spool, ledger: Ledger) -> Intake:
    return Intake(spool, ledger, model_id=_MODEL_ID, limit_bytes=_LIMIT)


def _offer(ds: Dataset, **changes: str) -> Offer:
    values = {
        "sop_class_uid": ds.SOPClassUID,
        "sop_instance_uid": ds.SOPInstanceUID,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "calling_ae_title": "PEER",
        **changes,
    }
    return Offer(**values)


def _arrive(intake: Intake, ds: Dataset, data: bytes | None = None) -> IncomingInstance:
    incoming = intake.begin(_offer(ds))
    whole = encoded(ds) if data is None else data
    for at in range(0, len(whole), 1000):
        incoming.write(memoryview(whole)[at : at + 1000])
    return incoming


def _files(spool: Spool) -> list[Path]:
    return [path for path in spool.root.rglob("*") if path.is_file()]


def _on_connect(ledger: Ledger, pragma: str) -> None:
    """Have every new connection of the ledger run a pragma."""

    @sa.event.listens_for(ledger._engine, "connect")
    def _run(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.execute(pragma)

    ledger._engine.dispose()


def test_a_kept_instance_is_a_readable_file_and_a_row(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    intake.keep(_arrive(intake, ds))
    [row] = ledger.study_instances(ds.StudyInstanceUID)
    [file] = _files(spool)
    assert file == spool.instance_path(row.path)
    stored = dcmread(file)
    assert stored == ds
    assert file.read_bytes().endswith(encoded(ds))
    assert row.sha256 == hashlib.sha256(ExplicitVRLittleEndian.encode() + encoded(ds)).hexdigest()
    assert row.byte_count == len(encoded(ds))
    assert row.calling_ae_title == "PEER"
    assert row.series_instance_uid == ds.SeriesInstanceUID


@pytest.mark.parametrize("calling_ae_title", ["ODD", "EVEN"])
def test_the_file_meta_information_is_our_own_and_complete(
    intake: Intake, spool: Spool, calling_ae_title: str
) -> None:
    ds = make_instance()
    incoming = intake.begin(_offer(ds, calling_ae_title=calling_ae_title))
    incoming.write(encoded(ds))
    intake.keep(incoming)
    [file] = _files(spool)
    meta = dcmread(file).file_meta
    assert meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == calling_ae_title
    assert meta.FileMetaInformationVersion == b"\0\1"


def test_an_instance_opens_its_case(intake: Intake, ledger: Ledger) -> None:
    ds = make_instance()
    intake.keep(_arrive(intake, ds))
    [case] = ledger.cases()
    assert case.study_instance_uid == ds.StudyInstanceUID
    assert case.model_id == _MODEL_ID


def test_the_same_instance_twice_is_one(intake: Intake, spool: Spool, ledger: Ledger) -> None:
    ds = make_instance()
    intake.keep(_arrive(intake, ds))
    intake.keep(_arrive(intake, ds))
    assert len(_files(spool)) == len(ledger.study_instances(ds.StudyInstanceUID)) == 1


def test_other_content_under_the_same_uid_leaves_the_first_as_it_was(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    intake.keep(_arrive(intake, ds))
    [file] = _files(spool)
    before = file.read_bytes()
    ds.PatientID = "OTHER"
    with pytest.raises(InstanceConflictError):
        intake.keep(_arrive(intake, ds))
    assert _files(spool) == [file]
    assert file.read_bytes() == before
    assert len(ledger.study_instances(ds.StudyInstanceUID)) == 1


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_another_instance_than_the_offered_one_is_refused(
    intake: Intake, spool: Spool, keyword: str
) -> None:
    offered, sent = make_instance(), make_instance()
    if keyword == "SOPClassUID":
        sent = make_instance(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID=offered.SOPInstanceUID
        )
    with pytest.raises(InstanceMismatchError, match=keyword):
        intake.keep(_arrive(intake, offered, encoded(sent)))
    assert _files(spool) == []


def test_an_unreadable_instance_leaves_nothing(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    with pytest.raises(InstanceUnreadableError):
        intake.keep(_arrive(intake, ds, encoded(ds)[:-10]))
    assert _files(spool) == []
    assert ledger.cases() == []


def test_an_instance_above_the_limit_is_refused_as_soon_as_it_is_passed(
    spool: Spool, ledger: Ledger
) -> None:
    intake = Intake(spool, ledger, model_id=_MODEL_ID, limit_bytes=5000)
    incoming = intake.begin(_offer(make_instance()))
    incoming.write(bytes(5000))
    with pytest.raises(InstanceTooLargeError):
        incoming.write(b"x")
    incoming.discard()
    assert _files(spool) == []


def test_below_the_free_floor_no_file_is_begun(spool: Spool, ledger: Ledger) -> None:
    spool.free_floor_bytes = 2**62
    intake = Intake(spool, ledger, model_id=_MODEL_ID, limit_bytes=_LIMIT)
    with pytest.raises(SpoolFullError):
        intake.begin(_offer(make_instance()))
    assert _files(spool) == []


def test_a_file_system_that_refuses_leaves_nothing(intake: Intake, spool: Spool) -> None:
    ds = make_instance(PixelData=bytes(2**18))
    incoming = _arrive(intake, ds)
    with largest_file_bytes(2**17), pytest.raises(SpoolUnwritableError):
        intake.keep(incoming)
    assert _files(spool) == []


def test_a_file_system_that_refuses_in_mid_instance_is_reported_at_once(
    intake: Intake, spool: Spool
) -> None:
    incoming = intake.begin(_offer(make_instance()))
    with largest_file_bytes(2**17), pytest.raises(SpoolUnwritableError):
        incoming.write(bytes(2**20))
    incoming.discard()
    assert _files(spool) == []


def test_discarding_works_while_the_file_system_refuses(intake: Intake, spool: Spool) -> None:
    incoming = intake.begin(_offer(make_instance()))
    with largest_file_bytes(100):
        incoming.write(bytes(1000))
        incoming.discard()
    assert _files(spool) == []


def test_a_full_database_is_no_success_and_leaves_nothing(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    intake.keep(_arrive(intake, make_instance()))
    _on_connect(ledger, "PRAGMA max_page_count=1")  # SQLite raises it to what is used already
    refused = 0
    for _ in range(200):
        try:
            intake.keep(_arrive(intake, make_instance()))
        except LedgerUnavailableError:
            refused += 1
    assert refused
    assert len(_files(spool)) == 201 - refused


def test_a_locked_database_is_no_success_and_leaves_nothing(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    _on_connect(ledger, "PRAGMA busy_timeout=50")
    ds = make_instance()
    with ledger._engine.begin():
        with pytest.raises(LedgerUnavailableError):
            intake.keep(_arrive(intake, ds))
        assert _files(spool) == []
    intake.keep(_arrive(intake, ds))
    assert len(_files(spool)) == 1


def test_the_same_instance_on_many_threads_is_one(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    threads = [threading.Thread(target=lambda: intake.keep(_arrive(intake, ds))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_files(spool)) == len(ledger.study_instances(ds.StudyInstanceUID)) == 1


def test_discarding_a_kept_instance_keeps_it(intake: Intake, spool: Spool) -> None:
    incoming = _arrive(intake, make_instance())
    intake.keep(incoming)
    incoming.discard()
    assert len(_files(spool)) == 1
