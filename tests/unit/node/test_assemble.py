"""When a case closes, and with what: decided by facts and a clock reading alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from converters import sequences
from converters.errors import MissingSliceError
from node.assemble import Close, Decision, OpenCase, Refuse, Rules, SeriesFacts, Wait, decide
from node.cases import ClosedBy, ReceivedInstance

ROLES = ("flair", "t1", "t1gd", "t2")
RULES = Rules(roles=ROLES, reference_role="t1gd", settle_s=3.0, quiet_s=60.0, deadline_s=3600.0)
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def _instance(series_uid: str, number: int) -> ReceivedInstance:
    return ReceivedInstance(
        study_instance_uid="1.2.3",
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


PHYSICS = {
    "flair": ("t2_tirm_tra_dark-fluid", "IR", 9000.0, 85.0, 2500.0, 150.0),
    "t1": ("t1_se_tra", "SE", 550.0, 9.0, None, 90.0),
    "t1gd": ("t1_se_tra +KM", "SE", 550.0, 9.0, None, 90.0),
    "t2": ("t2_tse_tra", "SE", 5000.0, 95.0, None, 150.0),
}


def _header(role: str) -> Dataset:
    description, scanning, tr, te, ti, flip = PHYSICS[role]
    ds = Dataset()
    ds.Modality = "MR"
    ds.SeriesDescription = description
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


def _series(role: str, *, slices: int = 20, whole: bool = True) -> SeriesFacts:
    uid = f"1.2.3.{ROLES.index(role) + 1}"
    fault = None if whole else MissingSliceError(slice_index=3, gap_mm=8.0, expected_mm=4.0)
    return SeriesFacts(
        series_instance_uid=uid,
        description=PHYSICS[role][0],
        evidence=sequences.evidence_of(_header(role)),
        instances=tuple(_instance(uid, number) for number in range(slices)),
        fault=fault,
    )


def _decide(series: list[SeriesFacts], *, silence_s: float, age_s: float = 100.0) -> Decision:
    now = START + timedelta(seconds=age_s)
    case = OpenCase(
        case_id="c" * 32,
        study_instance_uid="1.2.3",
        opened_at=START,
        last_received_at=now - timedelta(seconds=silence_s),
    )
    return decide(case, series, RULES, now)


WHOLE = [_series(role) for role in ROLES]


def test_a_whole_study_closes_after_the_settle_time() -> None:
    assert isinstance(_decide(WHOLE, silence_s=2.9), Wait)
    decision = _decide(WHOLE, silence_s=3.0)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.COMPLETE
    assert {one.role: one.series_instance_uid for one in decision.case.series} == {
        role: f"1.2.3.{number}" for number, role in enumerate(ROLES, start=1)
    }
    assert decision.case.reference_role == "t1gd"
    assert {one.role for one in decision.decisions} == set(ROLES)
    assert all(one.reason for one in decision.decisions)


@pytest.mark.parametrize("missing", ROLES)
def test_a_missing_sequence_is_waited_for_and_then_refused(missing: str) -> None:
    some = [one for role, one in zip(ROLES, WHOLE, strict=True) if role != missing]
    assert isinstance(_decide(some, silence_s=59.0), Wait)
    decision = _decide(some, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_MISSING"
    assert missing in str(decision.error)
    assert len(decision.decisions) == 3


def test_a_series_with_a_hole_is_waited_for_and_then_refused_with_its_own_code() -> None:
    series = [_series(role, whole=role != "t2") for role in ROLES]
    assert isinstance(_decide(series, silence_s=59.0), Wait)
    decision = _decide(series, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "GEOM_MISSING_SLICE"
    assert str(decision.error).startswith("t2: gap before slice 3 is 8.000 mm")
    (broken,) = [one for one in decision.decisions if not one.is_whole]
    assert (broken.role, broken.code) == ("t2", "GEOM_MISSING_SLICE")


def test_no_case_stays_open_beyond_the_deadline() -> None:
    decision = _decide(WHOLE[:2], silence_s=1.0, age_s=3600.0)
    assert isinstance(decision, Refuse)


def test_a_study_without_any_image_series_is_refused() -> None:
    decision = _decide([], silence_s=61.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_MISSING"


@given(order=st.permutations(WHOLE), silence_s=st.floats(0, 120), age_s=st.floats(120, 5000))
def test_the_order_of_arrival_changes_nothing(
    order: list[SeriesFacts], silence_s: float, age_s: float
) -> None:
    assert _plain(_decide(order, silence_s=silence_s, age_s=age_s)) == _plain(
        _decide(WHOLE, silence_s=silence_s, age_s=age_s)
    )


def _plain(decision: Decision) -> object:
    if isinstance(decision, Close):
        return decision.case.series, decision.case.closed_by
    if isinstance(decision, Refuse):
        return decision.error.code
    return decision.reason
