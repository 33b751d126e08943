"""Cases in every state for tests of the web role, written through the ledger's own methods."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette

from converters.errors import RoleMissingError
from inference import manifest as manifests
from inference.manifest import Manifest
from node import slices
from node.access import Gate
from node.cases import (
    AssembledCase,
    AssembledSeries,
    CaseState,
    ClosedBy,
    DeliveryReceipt,
    EncodedObject,
    Ending,
    ObjectKind,
    ReceivedInstance,
    SeriesDecision,
    Stage,
    Transport,
)
from node.errors import PeerUnavailableError
from node.ledger import Ledger
from node.peers import Destination
from node.receive.instance import Intake
from node.settings import Settings
from node.spool import STOWED, Spool
from node.tls import ServerTls
from node.web import serving
from node.web.app import create_app
from tests.web_pictures import picture, voxels

MODEL_FOLDER = Path(__file__).parent.parent / "models" / "demo-glioma"
GEOMETRY = "3 slices, 0.90 x 0.90 x 4.00 mm, axial, 2-D"
ALIGNMENT = (
    {
        "role": "flair",
        "is_applied": True,
        "shift_mm": 7.42,
        "rotation_deg": 3.1,
        "reason": "moved by 7.4 mm and 3.1 degrees; mutual information 0.431 by the headers, "
        "0.612 moved",
    },
    {
        "role": "t2",
        "is_applied": False,
        "shift_mm": 0.1,
        "rotation_deg": 0.0,
        "reason": "headers kept: the best fit lies 0.1 mm away, which is not more than 0.5 mm",
    },
)
MEASUREMENTS = {
    "schema": "neuroseg-measurements/1",
    "lesions": [
        {
            "number": 1,
            "volume_ml": 58.31,
            "enhancing": {"volume_ml": 12.7, "long_mm": 41.27, "short_mm": 28.93},
        },
        {"number": 2, "volume_ml": 3.12, "enhancing": None},
    ],
}
ROLES = {"flair": "FLAIR", "t1": "T1w", "t1gd": "T1gd", "t2": "T2w"}
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def unused(study: str, number: int, **changes: object) -> SeriesDecision:
    """Return what became of a further series of a study, which no role needs."""
    usual = SeriesDecision(
        series_instance_uid=f"{study}.{number}",
        description="ep2d_diff_3scan_trace_p2",
        sequence="other: DWI",
        role=None,
        score=0.9,
        reason="other: DWI: the image type says so",
        geometry="22 slices, 1.20 x 1.20 x 6.50 mm, axial, 2-D",
        instance_count=66,
        is_whole=True,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


@dataclass
class WebNode:
    """What the web role reads from, and the roles that would write it."""

    ledger: Ledger
    spool: Spool
    settings: Settings
    manifest: Manifest

    @classmethod
    def create(cls, folder: Path, **branches: object) -> WebNode:
        """Return an empty node; `branches` are branches of its settings."""
        destination = Destination(
            name="pacs", transport=Transport.DIMSE, host="127.0.0.1", port=4242
        )
        settings = Settings.model_validate(
            {"spool": {"path": folder}, "destinations": (destination,), **branches}
        )
        spool = Spool(folder)
        return cls(
            ledger=Ledger(settings.ledger_url),
            spool=spool,
            settings=settings,
            manifest=manifests.load(MODEL_FOLDER),
        )

    def app(self) -> Starlette:
        """Return the application on this node's ledger and spool."""
        gate = Gate.load(self.settings.web)
        return create_app(
            self.ledger, self.spool, self.settings, self.manifest, self.intake(), gate
        )

    def intake(self) -> Intake:
        """Return the way in of instances that come by STOW-RS."""
        limit_bytes = self.settings.receive.max_instance_bytes
        return Intake(
            self.spool,
            self.ledger,
            model_id=self.manifest.model_id,
            limit_bytes=limit_bytes,
            door=STOWED,
        )

    def beat(self, *roles: str, weights_sha256: str | None = None) -> None:
        """Let processes live; the infer role says which weights it has loaded."""
        loaded = {
            "model_id": self.manifest.model_id,
            "device": "cpu",
            "weights_sha256": weights_sha256 or self.manifest.weights_sha256,
        }
        for role in roles:
            self.ledger.beat(
                f"node-1/{role}",
                role=role,
                host="h",
                pid=1,
                detail=loaded if role == "infer" else None,
            )

    def run_windows(self, case_id: str, done: int, count: int) -> None:
        """Let the infer process be in the midst of a case."""
        detail = {
            "model_id": self.manifest.model_id,
            "device": "cpu",
            "weights_sha256": self.manifest.weights_sha256,
            "case_id": case_id,
            "windows_done": done,
            "window_count": count,
        }
        self.ledger.beat("node-1/infer", role="infer", host="h", pid=1, detail=detail)

    # -- stages ------------------------------------------------------------------------------

    def receive(self, study: str, *, roles: Sequence[str] = tuple(ROLES), slices: int = 3) -> str:
        """Receive images of a study; return its case."""
        for number, role in enumerate(ROLES, start=1):
            for slice_index in range(slices if role in roles else 0):
                uid = f"{study}.{number}.{slice_index}"
                self.ledger.record_instance(
                    ReceivedInstance(
                        study_instance_uid=study,
                        series_instance_uid=f"{study}.{number}",
                        sop_class_uid=MR_IMAGE_STORAGE,
                        sop_instance_uid=uid,
                        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
                        calling_ae_title="MODALITY",
                        path=f"instances/x/{uid}.dcm",
                        byte_count=131072,
                        sha256=hashlib.sha256(uid.encode()).hexdigest(),
                        received_at=datetime.now(UTC),
                    ),
                    model_id=self.manifest.model_id,
                )
        newest = self.ledger.cases(limit=1)[0]
        assert newest.study_instance_uid == study
        return newest.case_id

    def decisions(
        self,
        study: str,
        *,
        roles: Sequence[str] = tuple(ROLES),
        slices: int = 3,
        description: str = "{} axial",
    ) -> list[SeriesDecision]:
        """Return what the series of a study were taken for."""
        return [
            SeriesDecision(
                series_instance_uid=f"{study}.{number}",
                description=description.format(sequence),
                sequence=sequence,
                role=role,
                score=0.97,
                runner_up="PD 0.20" if role == "t2" else "",
                geometry=GEOMETRY,
                reason=f"echo, repetition and inversion times and the description say {sequence}",
                instance_count=slices,
                is_whole=True,
            )
            for number, (role, sequence) in enumerate(ROLES.items(), start=1)
            if role in roles
        ]

    def wait(self, case_id: str, reason: str, *, more: Sequence[SeriesDecision] = ()) -> None:
        """Note what an open case waits for."""
        study = self.ledger.case(case_id).study_instance_uid
        self.ledger.note_waiting(case_id, reason, [*self.decisions(study, roles=("flair",)), *more])

    def close(
        self, case_id: str, *, more: Sequence[SeriesDecision] = (), description: str = "{} axial"
    ) -> None:
        """Close a case whose four series are whole."""
        study = self.ledger.case(case_id).study_instance_uid
        instances = self.ledger.study_instances(study)
        slices = len(instances) // len(ROLES)
        case = AssembledCase(
            case_id=case_id,
            study_instance_uid=study,
            series=tuple(
                AssembledSeries(
                    series_instance_uid=f"{study}.{number}",
                    role=role,
                    instances=tuple(
                        one for one in instances if one.series_instance_uid == f"{study}.{number}"
                    ),
                )
                for number, role in enumerate(ROLES, start=1)
            ),
            reference_role="t1gd",
            closed_by=ClosedBy.COMPLETE,
        )
        decisions = [*self.decisions(study, slices=slices, description=description), *more]
        is_closed = self.ledger.close_case(
            case,
            decisions,
            "four series are whole and nothing came for 3 s",
            seen_instances=len(instances),
        )
        assert is_closed

    def attempt(self, case_id: str, stage: Stage, moved_to: CaseState) -> None:
        """Do one stage without a failure."""
        attempt_id = self.ledger.begin_attempt(case_id, stage)
        self.ledger.move(case_id, moved_to)
        self.ledger.end_attempt(attempt_id, outcome="done")

    def encode(self, case_id: str, *, held_for: Sequence[str] = ()) -> EncodedObject:
        """Take a closed case to its encoded result, files included."""
        self.attempt(case_id, Stage.CONVERT, CaseState.ASSEMBLED)
        self.attempt(case_id, Stage.SEGMENT, CaseState.SEGMENTED)
        attempt_id = self.ledger.begin_attempt(case_id, Stage.ENCODE)
        folder = self.spool.case_folder(case_id)
        (folder / "preview.png").write_bytes(picture())
        for name in ("cover", "planes", "axial-t1gd", "axial-flair"):
            (folder / f"summary-{name}.png").write_bytes(picture())
        (folder / "seg.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 90_000)
        (folder / "labels.nii.gz").write_bytes(b"\x1f\x8b labels")
        (folder / "channels.nii.gz").write_bytes(b"\x1f\x8b channels")
        (folder / "entropy.nii.gz").write_bytes(b"\x1f\x8b entropy")
        (folder / "entropy.dcm").write_bytes(b"DICM entropy")
        (folder / "probabilities.nii.gz").write_bytes(b"\x1f\x8b probabilities")
        for form in ("regions", "labelmap", "probabilities", "rtstruct", "seg-flair"):
            (folder / f"{form}.dcm").write_bytes(f"DICM {form}".encode())
        (folder / "sr.dcm").write_bytes(b"DICM report")
        (folder / "measurements.json").write_bytes(b"{}")
        layout, layers = voxels()
        np.save(folder / slices.FILE_NAME, layers)
        row = self.ledger.case(case_id)
        seg = EncodedObject(
            case_id=case_id,
            path=f"cases/{case_id}/seg.dcm",
            kind=ObjectKind.SEG,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            sop_instance_uid="2.25.101",
            series_instance_uid="2.25.102",
            study_instance_uid=row.study_instance_uid,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            byte_count=90_132,
            sha256="ab" * 32,
        )
        volumes_ml = dict(
            zip((one.label for one in self.manifest.segments), (48.31, 0.42, 12.7), strict=True)
        )
        summary = {
            "volumes_ml": volumes_ml,
            "regions_ml": {"Whole tumour": 61.43, "Tumour core": 13.12},
            "uncertainty": {
                "mean_by_label": {
                    one.label: mean
                    for one, mean in zip(self.manifest.segments, (0.31, 0.46, 0.12), strict=True)
                },
                "p95": 0.74,
            },
            "tta": {"axes": [0, 1, 2], "passes": 8},
            slices.KEY: {
                "layout": asdict(layout),
                "labels": [
                    {"number": one.number, "label": one.label, "color_rgb": one.color_rgb}
                    for one in self.manifest.segments
                ],
            },
            "measurements": MEASUREMENTS,
            "reference_role": "t1gd",
            "alignment": ALIGNMENT,
            "notes": [
                "INPUT_UNUSUAL: the image reaches beyond the head",
                "INPUT_MISSING: there is no t2; the model was run without it and is less exact",
            ],
        }
        self.ledger.save_result(seg, summary=summary, held_for=held_for)
        self.ledger.end_attempt(attempt_id, outcome="done")
        return seg

    def fail_delivery(
        self, case_id: str, *, next_in_s: float | None = None
    ) -> PeerUnavailableError:
        """Try once to deliver to a destination that does not answer."""
        error = PeerUnavailableError(destination="pacs", reason="connection refused")
        attempt_id = self.ledger.begin_attempt(case_id, Stage.DELIVER, "pacs")
        words = {"code": error.code, "sentence": str(error)}
        self.ledger.end_attempt(attempt_id, outcome="retry", next_in_s=next_in_s, **words)
        return error

    def deliver(self, seg: EncodedObject) -> None:
        """Deliver a result."""
        attempt_id = self.ledger.begin_attempt(seg.case_id, Stage.DELIVER, "pacs")
        self.ledger.save_receipt(
            DeliveryReceipt(
                case_id=seg.case_id,
                destination="pacs",
                transport=Transport.DIMSE,
                sop_instance_uid=seg.sop_instance_uid,
                status_code="0x0000",
                attempt=1,
                delivered_at=datetime.now(UTC),
            )
        )
        self.ledger.move(seg.case_id, CaseState.DELIVERED)
        self.ledger.end_attempt(attempt_id, outcome="done")

    # -- whole stories -----------------------------------------------------------------------

    def delivered(self, study: str, *, description: str = "{} axial") -> str:
        """Return a case whose result stands in the PACS."""
        case_id = self.receive(study)
        self.close(case_id, description=description)
        self.deliver(self.encode(case_id))
        return case_id

    def held(self, study: str) -> str:
        """Return a case whose result waits for a person."""
        case_id = self.receive(study)
        self.close(case_id)
        self.encode(case_id, held_for=["INPUT_MISSING"])
        return case_id

    def rejected(self, study: str) -> str:
        """Return a case that lacks two sequences."""
        case_id = self.receive(study, roles=("flair", "t2"))
        error = RoleMissingError(roles="t1, t1gd", found="flair, t2")
        ending = Ending(
            state=CaseState.REJECTED, code=error.code, sentence=str(error), advice=error.advice
        )
        decisions = self.decisions(study, roles=("flair", "t2"))
        seen = len(self.ledger.study_instances(study))
        assert self.ledger.refuse_open_case(case_id, ending, decisions, seen_instances=seen)
        return case_id

    def failed(self, study: str) -> str:
        """Return a case that failed while the model ran."""
        case_id = self.receive(study)
        self.close(case_id)
        self.attempt(case_id, Stage.CONVERT, CaseState.ASSEMBLED)
        attempt_id = self.ledger.begin_attempt(case_id, Stage.SEGMENT)
        code, sentence = "MODEL_OUTPUT_INVALID", "the network's output cannot be used: not finite"
        self.ledger.end_attempt(attempt_id, outcome="failed", code=code, sentence=sentence)
        advice = "Run `neuroseg doctor`; the model may not fit its manifest."
        ending = Ending(state=CaseState.FAILED, code=code, sentence=sentence, advice=advice)
        self.ledger.end_case(case_id, ending)
        return case_id


@contextmanager
def served(app: Starlette, tls: ServerTls | None = None) -> Iterator[str]:
    """Serve an application on a free port of the loopback; yield its address."""
    # The socket listens before the server runs: whoever connects at once waits in its backlog.
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(serving.config(app, tls))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
