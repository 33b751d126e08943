"""The conformance statement says what negotiation accepts, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from node.cases import ObjectKind
from node.reports import PUSH_MODEL
from scripts import write_conformance
from tests.doors import VERIFICATION, Door, Peer

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_MOST_CONTEXTS = 128  # PS3.8: odd identifiers up to 255


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with Door(tmp_path_factory.mktemp("statement")) as opened:
        yield opened


def _accepted(door: Door, offered: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return which pairs of SOP class and transfer syntax negotiation takes."""
    found = set()
    for at in range(0, len(offered), _MOST_CONTEXTS):
        some = offered[at : at + _MOST_CONTEXTS]
        contexts = [(uid, (syntax,)) for uid, syntax in some]
        with Peer(door.port, contexts) as peer:
            found |= {(some[(number - 1) // 2][0], uid) for number, uid in peer.accepted.items()}
            peer.release()
    return found


def _in_tables() -> set[str]:
    """Return the UIDs in the second cells of the document's tables."""
    text = write_conformance.DOCUMENT.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[1].removesuffix(" |") for cells in rows if cells[1].startswith("1.2.840.10008.")}


def test_the_document_is_the_one_that_the_code_gives() -> None:
    written = write_conformance.DOCUMENT.read_text(encoding="utf-8")
    assert written == write_conformance.render(), "run scripts/write_conformance.py"


def test_every_known_sop_class_is_accepted_where_the_statement_says_so(door: Door) -> None:
    stated = _in_tables()
    known = [uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"]
    offered = [(uid, str(ExplicitVRLittleEndian)) for uid in sorted({*known, *stated})]
    taken = {uid for uid, _ in _accepted(door, offered)}
    syntaxes = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    # Reports of storage commitment need role selection, which this peer does not propose.
    others = {*syntaxes, PUSH_MODEL, _APPLICATION_CONTEXT}
    assert taken - {PUSH_MODEL} == (stated - others) | {VERIFICATION}


def test_every_known_transfer_syntax_is_accepted_where_the_statement_says_so(door: Door) -> None:
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    stated = _in_tables() & known
    offered = [(str(MRImageStorage), uid) for uid in sorted(known)]
    assert {uid for _, uid in _accepted(door, offered)} == stated


def test_every_kind_of_result_is_in_the_statement() -> None:
    assert set(write_conformance.CREATED) == set(ObjectKind)


def test_the_links_of_the_statement_lead_somewhere() -> None:
    text = write_conformance.DOCUMENT.read_text(encoding="utf-8")
    targets = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert targets
    for target in targets:
        assert (Path(write_conformance.DOCUMENT).parent / target).exists(), target
