"""Status codes, and command sets against pynetdicom's own reading and writing of them."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.status import GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS

from node import dimse
from node.dimse import CommandSet, Status, StatusKind

_SOP_CLASS, _SOP_INSTANCE = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.45"
_KINDS = {
    "Success": StatusKind.SUCCESS,
    "Warning": StatusKind.WARNING,
    "Failure": StatusKind.FAILURE,
}


def _encoded_request(sop_instance_uid: str = _SOP_INSTANCE) -> bytes:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID = UID(_SOP_CLASS)
    primitive.AffectedSOPInstanceUID = UID(sop_instance_uid)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.CommandDataSetType = 0x0001
    encoded = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


def test_every_status_of_the_storage_table_means_what_the_standard_says() -> None:
    table = {
        code: _KINDS[kind]
        for code, (kind, _) in STORAGE_SERVICE_CLASS_STATUS.items()
        if code == Status.SUCCESS or code not in GENERAL_STATUS
    }
    assert len(table) > 4000
    assert {code: dimse.store_status_kind(code) for code in table} == table


@pytest.mark.parametrize("code", [0x0110, 0x0122, 0x0001, 0xFF00, 0xFE00, 0xB001])
def test_a_status_that_c_store_does_not_define_is_no_success(code: int) -> None:
    assert dimse.store_status_kind(code) is StatusKind.FAILURE


@pytest.mark.parametrize(
    ("code", "expected"), [(0xA700, True), (0xA7FF, True), (0xA900, False), (0x0000, False)]
)
def test_only_a7xx_is_lack_of_resources(code: int, *, expected: bool) -> None:
    assert dimse.is_out_of_resources(code) is expected


def test_our_names_for_general_statuses_stand_in_the_librarys_table_too() -> None:
    general = {status for status in Status if status < Status.OUT_OF_RESOURCES}
    assert general <= set(GENERAL_STATUS)


def test_the_implementation_class_uid_is_a_valid_uid() -> None:
    assert UID(dimse.IMPLEMENTATION_CLASS_UID).is_valid
    assert len(dimse.IMPLEMENTATION_VERSION_NAME) <= 16


def test_a_request_is_read_as_it_was_written() -> None:
    assert CommandSet.decode(_encoded_request()) == CommandSet(
        command=dimse.Command.C_STORE_RQ,
        message_id=7,
        has_data_set=True,
        affected_sop_class_uid=_SOP_CLASS.encode(),
        affected_sop_instance_uid=_SOP_INSTANCE.encode(),
    )


@pytest.mark.parametrize("cut", [1, 7, 9, 20])
def test_a_truncated_request_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="command set"):
        CommandSet.decode(_encoded_request()[:-cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_set_or_a_value_error(encoded: bytes) -> None:
    try:
        CommandSet.decode(encoded)
    except ValueError:
        return
    assert len(encoded) >= 3 * 10


@pytest.mark.parametrize("comment", ["", "odd", "even", "x" * 200, "caf\u00e9"])
def test_a_response_is_read_by_the_library(comment: str) -> None:
    request = CommandSet.decode(_encoded_request())
    encoded = dimse.store_response(request, Status.CONTENT_CONFLICT, comment=comment)
    response = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert response.CommandField == 0x8001
    assert response.MessageIDBeingRespondedTo == 7
    assert response.Status == 0xC111
    assert response.AffectedSOPClassUID == _SOP_CLASS
    assert response.AffectedSOPInstanceUID == _SOP_INSTANCE
    assert response.CommandGroupLength == len(encoded) - 12
    expected = comment.encode("ascii", "replace").decode()[:64]
    assert response.get("ErrorComment", "") == expected


def test_a_response_can_leave_out_uids_that_were_none() -> None:
    request = CommandSet.decode(_encoded_request())
    encoded = dimse.store_response(request, Status.CANNOT_UNDERSTAND, echoes_uids=False)
    response = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert "AffectedSOPInstanceUID" not in response
    assert "AffectedSOPClassUID" not in response
