"""What a PACS has of a study, and its instances as it keeps them: C-FIND with C-GET or C-MOVE.

DIMSE gives no headers without pixels. What C-FIND tells of each image takes their place; where that
is too little, one image of the series is fetched and looked at, and where that cannot be (C-MOVE
would store it here), what C-FIND tells of the series.

References
----------
DICOM PS3.4 C.4.1 (C-FIND), C.4.2 (C-MOVE), C.4.3 (C-GET), C.6.2 (Study Root).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, cast

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLETransferSyntaxes,
)
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from converters.errors import InputRejectedError
from converters.headers import read_header
from node import cfind
from node.archives import Headers, Stop, Taken
from node.deliver import store_scu
from node.dimse import Status, is_out_of_resources
from node.errors import InstanceUnreadableError, NodeError, PeerRefusedError, PeerUnavailableError
from node.peers import Destination
from node.receive.dataset import checked_uid
from node.receive.instance import Intake, Offer, file_meta
from node.receive.statuses import status_of

_GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")
_MOVE: Final = UID("1.2.840.10008.5.1.4.1.2.2.2")
RETRIEVED: Final = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
RETRIEVED_SYNTAXES: Final = (
    *cfind.PLAIN,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    *RLETransferSyntaxes,
)
_MODALITIES: Final = ("MR", "")
_MOVING_S: Final = 300.0
"""How long a PACS may move without a word: many send no pending responses."""
_PENDING: Final = (0xFF00, 0xFF01)

_OF_SERIES: Final = (  # a keyword a line would fill a page
    "SeriesInstanceUID Modality SeriesDescription ProtocolName BodyPartExamined SeriesDate "
    "SeriesTime NumberOfSeriesRelatedInstances SpecificCharacterSet"
)
_GEOMETRY: Final = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
_OF_IMAGE: Final = (  # a keyword a line would fill a page
    "SOPInstanceUID SOPClassUID ImagePositionPatient FrameOfReferenceUID "
    "SpacingBetweenSlices SliceThickness ImageType EchoTime EchoNumbers InversionTime "
    "RepetitionTime FlipAngle DiffusionBValue TemporalPositionIdentifier "
    "NumberOfTemporalPositions AcquisitionNumber AcquisitionDate AcquisitionTime "
    "TriggerTime ContrastBolusAgent ContrastBolusVolume ScanningSequence SequenceVariant "
    "ScanOptions SequenceName MRAcquisitionType EchoTrainLength PixelBandwidth AngioFlag "
    "PhotometricInterpretation BitsAllocated SamplesPerPixel NumberOfFrames Manufacturer "
    "MagneticFieldStrength SpecificCharacterSet"
)
_ENOUGH: Final = (*_GEOMETRY, "ImagePositionPatient", "RepetitionTime", "EchoTime", "ImageType")

Store: TypeAlias = Callable[[Offer, bytes], int]
"""Takes an instance that comes by C-GET; returns the status of the answer."""
Held: TypeAlias = Callable[[str], Mapping[str, int]]
"""What is stored here of a study: SOP Instance UID -> bytes."""


class DimseArchive:
    """A PACS that studies are pulled from by DIMSE.

    Parameters
    ----------
    peer : Destination
        Its address, and by its `retrieve` which way.
    calling_ae_title : str
        Who we are; where C-MOVE sends to.
    held : callable
        See `Held`.
    keywords : iterable of str
        What the rules of the site ask beside the usual.
    """

    def __init__(
        self, peer: Destination, *, calling_ae_title: str, held: Held, keywords: Iterable[str] = ()
    ) -> None:
        self._peer, self._calling_ae_title, self._held = peer, calling_ae_title, held
        self._of_image = tuple(dict.fromkeys((*_OF_IMAGE.split(), *_GEOMETRY, *keywords)))
        self._of_series: dict[str, Dataset] = {}
        self._gets = peer.retrieve == "get"

    @property
    def name(self) -> str:
        """What it is called here."""
        return self._peer.name

    @property
    def lane_count(self) -> int:
        """How many associations are opened at once."""
        return 2 if self._gets else 1

    def series(self, study_instance_uid: str) -> list[str]:
        """Return the Series Instance UIDs of a study that may be MR; none where it has no such.

        Raises
        ------
        PeerUnavailableError, PeerRefusedError
            No usable answer, as of every method here.
        """
        asked = cfind.query("SERIES", _OF_SERIES.split(), StudyInstanceUID=study_instance_uid)
        found = cfind.find(self._peer, self._calling_ae_title, asked)
        wanted = [one for one in found if str(one.get("Modality") or "") in _MODALITIES]
        self._of_series = {self._uid(one, "SeriesInstanceUID"): one for one in wanted}
        return sorted(self._of_series)

    def headers(self, study_instance_uid: str, series_instance_uid: str) -> Headers:
        """Return what C-FIND tells of each image, or the header of one for all of them."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
        asked = cfind.query("IMAGE", self._of_image, **keys)
        found = cfind.find(self._peer, self._calling_ae_title, asked)
        images = {self._uid(one, "SOPInstanceUID"): one for one in found}
        base = self._of_series.get(series_instance_uid, Dataset())
        is_sample = not all(one.get(each) for one in images.values() for each in _ENOUGH)
        if is_sample and self._gets and images:
            sample = self._sample(asked, next(iter(images)))
            if sample is not None:
                base = sample
                is_placed = all(one.get("ImagePositionPatient") for one in images.values())
                is_sample = not is_placed and len(images) > 1
        return Headers(
            by_uid={uid: _joined(base, one) for uid, one in images.items()}, is_sample=is_sample
        )

    def batches(self, lacking: Sequence[str], whole: Sequence[str]) -> list[tuple[str, ...]]:
        """Return whole series where nothing of them is here and C-MOVE brings them, else images."""
        if not self._gets and len(lacking) == len(whole):
            return [tuple(lacking)]
        return [(one,) for one in lacking]

    @contextmanager
    def open_lane(self, study_instance_uid: str, intake: Intake) -> Iterator[_GetLane | _MoveLane]:
        """Open an association, for one thread."""
        if self._gets:
            lane = _GetLane(self._peer, study_instance_uid, intake)
            with self._getting(lane.store) as lane.assoc:
                yield lane
            return
        contexts = [(cfind.STUDY_ROOT_FIND, cfind.PLAIN), (_MOVE, cfind.PLAIN)]  # some want both
        patience_s = self._peer.timeout_s + _MOVING_S
        with store_scu.open_association(
            self._peer, self._calling_ae_title, contexts, patience_s
        ) as assoc:
            yield _MoveLane(
                self._peer, study_instance_uid, assoc, (self._calling_ae_title, self._held)
            )

    @contextmanager
    def _getting(self, store: Store) -> Iterator[Association]:
        # Of each class one context a syntax: instances come as they are stored there.
        contexts = [
            (_GET, cfind.PLAIN),
            *((one, [way]) for one in RETRIEVED for way in RETRIEVED_SYNTAXES),
        ]

        def _on_store(event: evt.Event) -> int:
            try:
                return store(_offer(event, self._peer), event.encoded_dataset(include_meta=False))
            except InstanceUnreadableError as error:
                return status_of(error)

        with store_scu.open_association(
            self._peer,
            self._calling_ae_title,
            contexts,
            self._peer.timeout_s,
            [(evt.EVT_C_STORE, _on_store)],
            stored_here=RETRIEVED,
        ) as assoc:
            yield assoc

    def _sample(self, asked: Dataset, sop_instance_uid: str) -> Dataset | None:
        """Return the header of one image of a series, None where it does not come."""
        found: list[Dataset] = []

        def _look(offer: Offer, encoded: bytes) -> int:
            with tempfile.TemporaryDirectory(prefix="neuroseg-") as folder:
                file = Path(folder) / "sample.dcm"
                file.write_bytes(file_meta(offer) + encoded)
                try:
                    found.append(read_header(file, instance=0))
                except InputRejectedError:
                    return Status.CANNOT_UNDERSTAND
            return Status.SUCCESS

        series, study = asked.SeriesInstanceUID, asked.StudyInstanceUID
        wanted = _identifier(study, series, [sop_instance_uid])
        try:
            with self._getting(_look) as assoc:
                _final(assoc, self._peer, wanted, lambda: False)
        except PeerRefusedError:
            return None
        return found[0] if found else None

    def _uid(self, ds: Dataset, keyword: str) -> str:
        try:
            return checked_uid(str(ds.get(keyword) or "").encode("utf-8", "replace"), keyword)
        except InstanceUnreadableError as error:
            raise PeerRefusedError(destination=self.name, status="unreadable answer") from error


class _GetLane:
    """Instances come over the very association that they are asked for by."""

    assoc: Association

    def __init__(self, peer: Destination, study_instance_uid: str, intake: Intake) -> None:
        self._peer, self._study, self._intake = peer, study_instance_uid, intake
        self._came: dict[str, NodeError | None] = {}
        self._byte_count = 0

    def store(self, offer: Offer, encoded: bytes) -> int:
        """Store what comes."""
        error: NodeError | None = None
        try:
            incoming = self._intake.begin(offer)
            try:
                incoming.write(encoded)
                self._intake.keep(incoming)
            finally:
                incoming.discard()
        except NodeError as refusal:
            error = refusal
        self._came[offer.sop_instance_uid] = error
        self._byte_count += len(encoded)
        return Status.SUCCESS if error is None else status_of(error)

    def take(self, series_instance_uid: str, instances: Sequence[str], stop: Stop) -> Taken:
        """Store one instance."""
        self._came, self._byte_count = {}, 0
        wanted = _identifier(self._study, series_instance_uid, instances)
        status = _final(self.assoc, self._peer, wanted, stop)
        if self._came.keys() != {*instances}:
            shown = f"0x{status:04X}, another instance" if self._came else f"0x{status:04X}"
            raise PeerRefusedError(destination=self._peer.name, status=shown)
        return Taken(byte_count=self._byte_count, outcomes=tuple(self._came.values()))


class _MoveLane:
    """Instances come to the node's own port, as those that are sent."""

    def __init__(
        self,
        peer: Destination,
        study_instance_uid: str,
        assoc: Association,
        here: tuple[str, Held],
    ) -> None:
        self._peer, self._study, self._assoc = peer, study_instance_uid, assoc
        self._ae_title, self._held = here

    def take(self, series_instance_uid: str, instances: Sequence[str], stop: Stop) -> Taken:
        """Have instances of a series sent here; one, or the whole series."""
        named = instances if len(instances) == 1 else ()
        wanted = _identifier(self._study, series_instance_uid, named)
        status = _final(self._assoc, self._peer, wanted, stop, move_to=self._ae_title)
        held = self._held(self._study)
        came = [held[one] for one in instances if one in held]
        if not came and not stop():
            raise PeerRefusedError(destination=self._peer.name, status=f"0x{status:04X}, nothing")
        lost = PeerRefusedError(destination=self._peer.name, status=f"0x{status:04X}")
        outcomes = tuple(None if one in held else lost for one in instances)
        return Taken(byte_count=sum(came), outcomes=() if stop() else outcomes)


def _identifier(study: str, series: str, instances: Sequence[str]) -> Dataset:
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    if not instances:
        return cfind.query("SERIES", (), **keys)
    return cfind.query("IMAGE", (), **keys, SOPInstanceUID=instances[0])


def _final(
    assoc: Association, peer: Destination, wanted: Dataset, stop: Stop, *, move_to: str = ""
) -> int:
    """Ask for instances and return how that ended: 0, or a warning that some did not come."""
    try:
        answers = (
            assoc.send_c_move(wanted, move_to, _MOVE) if move_to else assoc.send_c_get(wanted, _GET)
        )
        status = 0
        for answer, _ in answers:
            if "Status" not in answer:
                raise PeerUnavailableError(destination=peer.name, reason="no answer in time")
            status = int(answer.Status)
            if stop():
                assoc.abort()
                return status
    except ValueError as error:
        what = "C-MOVE" if move_to else "C-GET"
        raise PeerRefusedError(destination=peer.name, status=f"{what} not accepted") from error
    except RuntimeError as error:
        raise PeerUnavailableError(destination=peer.name, reason="association ended") from error
    if is_out_of_resources(status):
        reason = f"out of resources, status 0x{status:04X}"
        raise PeerUnavailableError(destination=peer.name, reason=reason)
    if status not in (Status.SUCCESS, Status.COERCED, *_PENDING):
        raise PeerRefusedError(destination=peer.name, status=f"0x{status:04X}")
    return status


def _offer(event: evt.Event, peer: Destination) -> Offer:
    request = cast("C_STORE", event.request)
    sop_class, instance, syntax = (
        checked_uid(str(uid).encode("utf-8", "replace"), keyword)
        for uid, keyword in (
            (request.AffectedSOPClassUID, "SOPClassUID"),
            (request.AffectedSOPInstanceUID, "SOPInstanceUID"),
            (event.context.transfer_syntax, "TransferSyntaxUID"),
        )
    )
    return Offer(
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=syntax,
        calling_ae_title=peer.ae_title,
    )


def _joined(base: Dataset, image: Dataset) -> Dataset:
    """Return a header with what is told of the image alone above what it shares with others."""
    whole = Dataset()
    whole.update(base)
    whole.update({one.tag: one for one in image if not one.is_empty})
    return whole
