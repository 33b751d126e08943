"""Write docs/conformance.md: the DICOM Conformance Statement, its tables made from the code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ParametricMapStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from converters.seg_check import LABEL_MAP_STORAGE
from node.cases import ObjectKind
from node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Status
from node.dimse_archive import RETRIEVED, RETRIEVED_SYNTAXES
from node.door_errors import StowBusyError, StowInvalidError, StowTooLargeError, StowTypeError
from node.receive.scp import presentation_contexts
from node.receive.statuses import STATUSES
from node.reports import PUSH_MODEL
from node.settings import Settings
from node.web import problems

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = ROOT / "docs" / "conformance.md"
_TEMPLATE: Final = ROOT / "scripts" / "conformance_template.md"
_VERIFICATION: Final = "1.2.840.10008.1.1"
_NAMES: Final = {
    str(LABEL_MAP_STORAGE): "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
}
"""Those that pydicom's dictionary does not have yet."""
CREATED: Final[dict[ObjectKind, tuple[UID, str]]] = {
    ObjectKind.SEG: (SegmentationStorage, "labels, BINARY or (odd matrices) FRACTIONAL of 0 and 1"),
    ObjectKind.ALSO: (SegmentationStorage, "the same on another input series"),
    ObjectKind.REGIONS: (SegmentationStorage, "regions that overlap"),
    ObjectKind.PROBABILITIES: (SegmentationStorage, "FRACTIONAL, probability of each label"),
    ObjectKind.LABELMAP: (LABEL_MAP_STORAGE, "labels, LABELMAP"),
    ObjectKind.REPORT: (Comprehensive3DSRStorage, "measurements, TID 1500"),
    ObjectKind.ENTROPY: (ParametricMapStorage, "how unsure the model is of each voxel"),
    ObjectKind.PICTURE: (SecondaryCaptureImageStorage, "summary for people"),
    ObjectKind.STRUCTURES: (RTStructureSetStorage, "outlines"),
}
"""What the node makes; docs/results-forms.md says when."""


def accepted() -> tuple[list[str], list[str]]:
    """Return the storage classes that are accepted, and the transfer syntaxes of each."""
    contexts = [one for one in presentation_contexts() if one.abstract_syntax not in _OTHERS]
    classes = [str(one.abstract_syntax) for one in contexts]
    return classes, [str(uid) for uid in contexts[0].transfer_syntax]


_OTHERS: Final = (_VERIFICATION, PUSH_MODEL)


def render() -> str:
    """Return the document."""
    classes, syntaxes = accepted()
    receive, web, stow = Settings().receive, Settings().web, Settings().stow
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        storage_classes=_table(("SOP class", "UID"), ((_name(uid), uid) for uid in classes)),
        transfer_syntaxes=_table(
            ("transfer syntax", "UID"), ((_name(uid), uid) for uid in syntaxes)
        ),
        storage_class_count=len(classes),
        transfer_syntax_count=len(syntaxes),
        created=_table(
            ("SOP class", "UID", "what"),
            ((_name(uid), str(uid), what) for uid, what in CREATED.values()),
        ),
        retrieved=_table(("SOP class", "UID"), ((_name(uid), str(uid)) for uid in RETRIEVED)),
        retrieved_syntax_count=len(RETRIEVED_SYNTAXES),
        commitment_uid=PUSH_MODEL,
        statuses=_statuses(),
        stow_statuses=_stow_statuses(),
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        ae_title=receive.ae_title,
        port=receive.port,
        web_port=web.port,
        max_pdu_bytes=receive.max_pdu_bytes,
        max_associations=receive.max_associations,
        max_instance_bytes=receive.max_instance_bytes,
        idle_timeout_s=f"{receive.idle_timeout_s:.0f}",
        max_requests=stow.max_requests,
        max_request_bytes=stow.max_request_bytes,
    )


def _name(uid: str) -> str:
    return _NAMES.get(str(uid), UID(str(uid)).name)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _statuses() -> str:
    """Return the table of failures, those of one status together."""
    codes: dict[Status, list[str]] = {}
    for kind, status in STATUSES:
        codes.setdefault(status, []).append(f"`{kind.code}`")
    rows = [
        (
            "Success",
            "0000",
            "it is durable; also an instance that was stored before, byte for byte",
        ),
        *(
            (_words(status), f"{status:04X}", ", ".join(of_status))
            for status, of_status in codes.items()
        ),
        (_words(Status.PROCESSING_FAILURE), f"{Status.PROCESSING_FAILURE:04X}", "anything else"),
    ]
    return _table(("meaning", "status", "when"), rows)


def _words(status: Status) -> str:
    return status.name.replace("_", " ").capitalize()


def _stow_statuses() -> str:
    refused = [
        (str(problems.STATUSES[kind].value), f"`{kind.code}`")
        for kind in (StowInvalidError, StowTooLargeError, StowTypeError, StowBusyError)
    ]
    rows = [
        ("200", "every instance is stored"),
        ("202", "some are; the others are in Failed SOP Sequence or Other Failures Sequence"),
        ("409", "none is"),
        ("503, 507", "none is, for want of disk, database or room: `Retry-After` says when"),
        *refused,
    ]
    return _table(("HTTP status", "when"), rows)


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
