"""deploy/compose/many.yml brought up: each role in containers of its own, one of each lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from node.requesting import RequestingEntity
from tests import containers, phantoms
from tests.containers import MANY, Stack
from tests.phantoms import WrittenStudy
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

PATIENCE_S = 600.0
SEALED = (
    *("node", "balancer", "postgres", "receive-1", "receive-2", "work-1", "work-2", "infer-1"),
)
WORKING = {"complete", "assembled"}  # closed, and not yet segmented


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    containers.require_merging()
    containers.build_node()
    containers.build_viewer()
    containers.build_stand_ins()
    with Stack(MANY) as running:
        yield running


def results(stack: Stack, study_uid: str) -> list[bytes]:
    """Wait for the Segmentation of a study in the archive; return its files."""
    (series_uid,) = wait_until(
        lambda: stack.series(study_uid, "SEG"), PATIENCE_S, "the Segmentation", poll_s=2.0
    )
    return stack.files(series_uid)


def wait_delivered(stack: Stack, count: int) -> list[str]:
    wait_until(
        lambda: sorted(stack.states().values()) == ["delivered"] * count,
        PATIENCE_S,
        f"{count} cases to be delivered",
        poll_s=1.0,
    )
    return list(stack.states())


def answers(stack: Stack) -> bool:
    """Say whether some receiver answers a C-ECHO at the published port."""
    entity = RequestingEntity("SCANNER")
    entity.add_requested_context(Verification)
    entity.acse_timeout = entity.dimse_timeout = entity.connection_timeout = 5
    association = entity.associate("127.0.0.1", stack.dicom_port, ae_title="NEUROSEG")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0


def test_a_study_goes_through_all_of_them(stack: Stack, small_study: WrittenStudy) -> None:
    stack.upload(small_study.interleaved)
    assert len(results(stack, small_study.files.study_instance_uid)) == 1
    (case_id,) = wait_delivered(stack, 1)
    page = stack.get(f"/cases/{case_id}")
    assert page.is_success
    assert "delivered" in page.text


def test_one_of_each_is_lost_and_no_study(stack: Stack, tmp_path: Path) -> None:
    before = stack.states()
    study = phantoms.written(tmp_path, seed=6)
    stack.kill("receive-1")
    stack.upload(study.interleaved)

    def is_at_work() -> bool:
        return any(state in WORKING for one, state in stack.states().items() if one not in before)

    wait_until(is_at_work, PATIENCE_S, "the study to be worked on", poll_s=0.3)
    stack.kill("work-1")
    assert len(results(stack, study.files.study_instance_uid)) == 1
    wait_delivered(stack, len(before) + 1)
    stack.start("receive-1")
    stack.kill("receive-2")
    wait_until(lambda: answers(stack), 120.0, "the receiver that came back", poll_s=1.0)


def test_all_are_sealed(stack: Stack) -> None:
    for service in ("receive-2", "work-1"):  # killed above
        if not stack.inspect(service)["State"]["Running"]:
            stack.start(service)
    for service in SEALED:
        refused = stack.within(service, "sh", "-c", "touch /etc/x 2>&1 || true")
        assert "Read-only file system" in refused, service
        rights = stack.within(service, "sh", "-c", "cat /proc/1/status").splitlines()
        fields = dict(line.split(":\t", 1) for line in rights)
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
        assert fields["Uid"].split()[0] != "0", service


def test_only_balancer_archive_and_viewer_publish_a_port(stack: Stack) -> None:
    for service in (*SEALED, "orthanc", "viewer"):
        ports = stack.inspect(service)["NetworkSettings"]["Ports"]
        published = [one for found in ports.values() for one in found or ()]
        assert bool(published) == (service in {"balancer", "orthanc", "viewer"}), service
        assert {one["HostIp"] for one in published} <= {"127.0.0.1"}


def test_no_log_names_a_password(stack: Stack) -> None:
    for service in SEALED:
        assert "within-this-stack" not in stack.log(service), service
