"""However a peer cuts a message up, the short way and the library's way take the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from node.receive import transport
from tests.doors import AbortedError, Answer, Door, Peer, command_set, encoded, make_instance, pdu

_COMMAND, _DATA, _LAST = 1, 0, 2
_DATA_SET = make_instance()  # 2.5 KB, ends in bytes that tell their order
_CUTS = st.lists(st.integers(1, 2600), max_size=8)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with Door(tmp_path_factory.mktemp("door"), max_pdu_bytes=4096) as door:
        yield door


def _values(kind: int, content: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Return the presentation data values of a command or data set that is cut at these places."""
    ends = sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    found = []
    for begin, end in zip([0, *ends], ends, strict=False):
        header = kind | (_LAST if end == len(content) else 0)
        piece = content[begin:end]
        found.append(struct.pack(">LBB", len(piece) + 2, 1, header) + piece)
    return found


def _message(ds: Dataset, cuts: Sequence[int], together: Sequence[int]) -> bytes:
    """Return the PDUs of a C-STORE request; `together` says how many values each holds."""
    command = {
        0x0002: MRImageStorage.encode(),
        0x0100: struct.pack("<H", 1),
        0x0110: struct.pack("<H", 1),
        0x0800: struct.pack("<H", 0),
        0x1000: ds.SOPInstanceUID.encode(),
    }
    values = _values(_COMMAND, command_set(command), cuts)
    values += _values(_DATA, encoded(ds), cuts)
    pdus, numbers = b"", iter(together)
    while values:
        count = next(numbers, 1)
        while count > 1 and sum(map(len, values[:count])) > 4096:
            count -= 1
        pdus += pdu(4, b"".join(values[:count]))
        del values[:count]
    return pdus


def _sent(door: Door, message: bytes, sizes: Sequence[int]) -> Answer:
    """Send a message in TCP segments of these sizes."""
    with Peer(door.port) as peer:
        at = 0
        for size in sizes:
            peer.socket.sendall(message[at : at + size])
            at += size
        peer.socket.sendall(message[at:])
        answer = peer.read_response()
        peer.release()
        return answer


@given(
    cuts=_CUTS,
    together=st.lists(st.integers(1, 4), max_size=8),
    sizes=st.lists(st.integers(1, 900), max_size=12),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_both_ways_take_the_same_bytes(
    door: Door, cuts: list[int], together: list[int], sizes: list[int]
) -> None:
    ds = Dataset()
    ds.update(_DATA_SET)
    ds.SOPInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid()
    message = _message(ds, cuts, together)
    assert _sent(door, message, sizes).status == 0
    assert door.stored(ds).read_bytes().endswith(encoded(ds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_OPEN", "no state")
        # Other bytes under the same UID would be refused.
        assert _sent(door, message, sizes).status == 0


@pytest.mark.parametrize("is_library", [False, True], ids=["the short way", "the library"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no value"),
        pytest.param(b"\0\0\0", id="half a header"),
        pytest.param(struct.pack(">LBB", 100, 1, 3) + b"\0" * 20, id="longer than its PDU"),
        pytest.param(struct.pack(">LBB", 4, 1, 0) + b"\0\0\0\0\0", id="something behind"),
        pytest.param(struct.pack(">LB", 1, 1), id="no control header"),
        pytest.param(struct.pack(">LB", 0, 1), id="no length"),
    ],
)
def test_a_pdu_that_is_damaged_ends_the_association_either_way(
    door: Door,
    content: bytes,
    is_library: bool,  # noqa: FBT001
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_library:
            patch.setattr(transport, "_OPEN", "no state")
        with Peer(door.port) as peer:
            peer.socket.sendall(pdu(4, content))
            with pytest.raises(AbortedError):
                peer.read_response()
    assert not list(door.spool.root.rglob("*.part"))
