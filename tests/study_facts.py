"""What is known of the series of a study, made up for tests of decisions; no file is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset

from converters import sequences
from converters.errors import InputRejectedError, MissingSliceError
from converters.sequences import Ruling, SeriesKey
from converters.volume import Grid, Role
from node.assemble import (
    NO_SOURCE,
    Decision,
    Expectation,
    OpenCase,
    Rules,
    SeriesFacts,
    decide,
)
from node.cases import ReceivedInstance, SeriesCount

STUDY = "1.2.3"
ROLES: tuple[Role, ...] = ("flair", "t1", "t1gd", "t2")
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
FAULT = MissingSliceError(slice_index=3, gap_mm=8.0, expected_mm=4.0)
RULES = Rules(
    roles=ROLES,
    reference_role="t1gd",
    settle_s=3.0,
    released_quiet_s=15.0,
    quiet_s=60.0,
    deadline_s=3600.0,
)
PHYSICS = {
    "flair": ("t2_tirm_tra_dark-fluid", "IR", 9000.0, 85.0, 2500.0, 150.0),
    "t1": ("t1_se_tra", "SE", 550.0, 9.0, None, 90.0),
    "t1gd": ("t1_se_tra +KM", "SE", 550.0, 9.0, None, 90.0),
    "t2": ("t2_tse_tra", "SE", 5000.0, 95.0, None, 150.0),
}


def header(role: Role, description: str = "") -> Dataset:
    """Return what the header of a typical series of a role says."""
    usual, scanning, tr, te, ti, flip = PHYSICS[role]
    ds = Dataset()
    ds.Modality = "MR"
    ds.SeriesDescription = description or usual
    ds.ScanningSequence = scanning
    ds.RepetitionTime = tr
    ds.EchoTime = te
    ds.FlipAngle = flip
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    if ti is not None:
        ds.InversionTime = ti
    if role == "t1gd":
        ds.ContrastBolusAgent = "agent"
    return ds


def instance(series_uid: str, number: int) -> ReceivedInstance:
    return ReceivedInstance(
        study_instance_uid=STUDY,
        series_instance_uid=series_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=f"{series_uid}.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="SCANNER",
        path=f"instances/{series_uid}-{number}.dcm",
        byte_count=1000,
        sha256="ab",
        received_at=START,
    )


def grid(slice_mm: float, slices: int) -> Grid:
    matrix = np.diag([1.0, 1.0, 1.0, 1.0])
    matrix[:3, :3] = [[0.0, 0.0, 0.9], [0.0, 0.9, 0.0], [slice_mm, 0.0, 0.0]]
    return Grid(shape=(slices, 256, 256), index_to_lps_mm=matrix, frame_of_reference_uid="1.9")


def uid_of(role: Role, *, repeat: int = 0) -> str:
    """Return the Series Instance UID that `series` gives."""
    return f"{STUDY}.{10 * repeat + ROLES.index(role) + 1}"


def series(  # noqa: PLR0913 - each is one property of a series
    role: Role,
    *,
    slices: int = 20,
    fault: InputRejectedError | None = None,
    slice_mm: float = 5.0,
    repeat: int = 0,
    part: str = "",
    ruling: Ruling | None = None,
    description: str = "",
) -> SeriesFacts:
    """Return the facts of a typical series of a role."""
    uid = uid_of(role, repeat=repeat)
    return SeriesFacts(
        series_instance_uid=uid,
        part=part,
        description=description or PHYSICS[role][0],
        evidence=sequences.evidence_of(header(role, description)),
        instances=tuple(instance(uid, number) for number in range(slices)),
        grid=None if fault is not None else grid(slice_mm, slices),
        geometry=f"{slices} slices",
        ruling=ruling,
        fault=fault,
    )


WHOLE = [series(role) for role in ROLES]


def counted(facts: list[SeriesFacts], **more: int) -> Expectation:
    """Return the PACS's count where it holds as much as we do, and `more` images of some roles."""
    counts = {
        one.series_instance_uid: SeriesCount(modality="MR", instance_count=len(one.instances))
        for one in facts
    }
    for role, count in more.items():
        uid = uid_of(role)
        held = counts[uid].instance_count if uid in counts else 0
        counts[uid] = SeriesCount(modality="MR", instance_count=held + count)
    return Expectation(is_asked=True, series=counts)


def seen(  # noqa: PLR0913 - what a decision depends on
    facts: Sequence[SeriesFacts],
    *,
    silence_s: float,
    age_s: float = 100.0,
    released_s: float | None = None,
    is_forced: bool = False,
    by_hand: Mapping[Role, SeriesKey] | None = None,
    rules: Rules = RULES,
    expected: Expectation = NO_SOURCE,
) -> Decision:
    """Return the decision about a case of an age, after so much silence.

    `released_s` is how long after the last instance its association was released; negative: an
    earlier one.
    """
    now = START + timedelta(seconds=age_s)
    last = now - timedelta(seconds=silence_s)
    case = OpenCase(
        case_id="c" * 32,
        study_instance_uid=STUDY,
        opened_at=START,
        last_received_at=last,
        released_at=None if released_s is None else last + timedelta(seconds=released_s),
        is_forced=is_forced,
        by_hand=by_hand or {},
    )
    return decide(case, facts, rules, now, expected)
