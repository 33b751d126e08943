"""What operators do on the pages, in a real browser and by keyboard: each order and its effect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs
from node.cases import CaseState, Stage
from tests import peers
from tests.browser import Page
from tests.scripted_peers import closed_port, dimse_destination
from tests.waiting import wait_until
from tests.web_cases import WebNode, served, unused

pytestmark = pytest.mark.integration

TOKEN = "o" * 24


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path / "spool", web={"tokens": f"operator somebody {TOKEN}"})
    made.beat("receive", "work", "infer", "web")
    yield made
    made.ledger.close()


@pytest.fixture
def address(node: WebNode, page: Page) -> Iterator[str]:
    """Yield the address of a node where the browser's user has logged in."""
    with served(node.app()) as found:
        page.open(f"{found}/login")
        page.value(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
        _press(page, "Log in")
        page.until("document.body.innerText.includes('Send a first study')")
        yield found


def _press(page: Page, words: str) -> None:
    """Press Enter on a button, which loads the page that the node answers with."""
    page.value("window.isOld = true")
    page.value(
        "[...document.querySelectorAll('button')]"
        f".find((one) => one.innerText === {json.dumps(words)}).focus()"
    )
    _enter(page)
    page.until("window.isOld === undefined && document.readyState === 'complete'")
    page.value("window.isSame = true")


def _enter(page: Page) -> None:
    for kind in ("keyDown", "keyUp"):
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        page.call("Input.dispatchKeyEvent", type=kind, **enter)


def _until_it_says(page: Page, words: str) -> None:
    page.until(f"document.getElementById('main').innerText.includes({json.dumps(words)})")
    assert page.value("window.isSame") is True


def _keep(page: Page, name: str) -> None:
    """Keep what is on the screen, where somebody wants to look at it."""
    if folder := os.environ.get("NEUROSEG_TEST_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(Path(folder) / f"order-{name}.png")


def test_a_case_is_cancelled_and_started_again(node: WebNode, address: str, page: Page) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    page.open(f"{address}/cases/{case_id}")
    _press(page, "Cancel the case")
    _until_it_says(page, "CASE_CANCELLED")
    _keep(page, "cancelled")
    _press(page, "Start again")
    _until_it_says(page, "Waiting for conversion")
    page.value("document.getElementById('priority').value = 'high'")
    _press(page, "Set")
    _until_it_says(page, "High priority")
    node.attempt(case_id, Stage.CONVERT, CaseState.ASSEMBLED)
    _until_it_says(page, "Waiting for the model")
    assert page.complaints() == []


def test_a_held_result_is_released_and_a_delivery_tried_again(
    node: WebNode, address: str, page: Page
) -> None:
    case_id = node.held("1.2.1")
    page.open(f"{address}/cases/{case_id}")
    _press(page, "Release the result")
    _until_it_says(page, "Released")
    node.fail_delivery(case_id, next_in_s=3000.0)
    _until_it_says(page, "PEER_UNAVAILABLE")
    _press(page, "Try deliveries now")
    seg = node.ledger.results(case_id)[0]
    node.deliver(seg)
    page.until("document.querySelector('.badge').innerText === 'Delivered'")
    assert page.value("window.isSame") is True
    assert page.complaints() == []


def test_an_open_case_is_closed_with_what_there_is(node: WebNode, address: str, page: Page) -> None:
    case_id = node.receive("1.2.1")
    page.open(f"{address}/cases/{case_id}")
    _press(page, "Close with what there is")
    _until_it_says(page, "Asked to close")
    node.close(case_id)
    _until_it_says(page, "Waiting for conversion")
    assert page.complaints() == []


def test_a_series_is_chosen_by_hand(node: WebNode, address: str, page: Page) -> None:
    case_id = node.receive("1.2.1", roles=("flair",))
    more = [unused("1.2.1", 5, sequence="T1w", description="another T1w")]
    node.wait(case_id, "STUDY_SEQUENCE_MISSING: no series serves as t1", more=more)
    page.open(f"{address}/cases/{case_id}")
    page.value("document.getElementById('choose').open = true")
    page.value("document.getElementById('choose-t1').value = '2'")
    _keep(page, "choice")
    _press(page, "Choose")
    _until_it_says(page, "chosen by hand")
    assert list(node.ledger.choices(case_id)) == ["t1"]
    assert page.complaints() == []


def test_an_order_that_came_too_late_is_refused_with_words(
    node: WebNode, address: str, page: Page
) -> None:
    case_id = node.held("1.2.1")
    late = node.delivered("1.2.2")
    page.open(f"{address}/cases/{case_id}")
    page.value(f"document.querySelector('.actions form').action = '/cases/{late}/release'")
    _press(page, "Release the result")
    _until_it_says(page, "CASE_ACTION_UNAVAILABLE")
    _keep(page, "refused")
    assert node.ledger.case(case_id).state is CaseState.HELD


def test_a_destination_is_asked_whether_it_is_there(tmp_path: Path, page: Page) -> None:
    peers.require("dcmtk")
    port = closed_port()
    pacs = dimse_destination(port).model_copy(update={"name": "pacs"})
    made = WebNode.create(tmp_path / "spool", destinations=(pacs,))
    storescp = [str(peers.program("storescp")), "-od", str(tmp_path), str(port)]
    with served(made.app()) as found, subprocess.Popen(storescp) as peer:
        wait_until(lambda: _listens(port), 20.0, "storescp")
        page.open(f"{found}/system")
        page.value("window.isSame = true")
        page.value("document.querySelector('form.echo button').focus()")
        _enter(page)
        _until_it_says(page, "yes answers C-ECHO")
        made.beat("work")  # which the page shows, and what was answered stays
        _until_it_says(page, "Work")
        assert "yes answers C-ECHO" in page.value("document.querySelector('.echo').innerText")
        peer.terminate()
        peer.wait()
        _enter(page)
        _until_it_says(page, "PEER_UNAVAILABLE")
        assert page.value("document.activeElement.textContent") == "Echo pacs"
        _keep(page, "echo")
    assert page.complaints() == []
    made.ledger.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def test_who_logs_out_is_told_no_more(node: WebNode, address: str, page: Page) -> None:
    node.receive("1.2.1")
    _press(page, "Log out")
    page.open(f"{address}/")
    assert "Token" in page.value("document.body.innerText")
    assert page.value("fetch('/api/v1/changes').then((answer) => answer.status)") == 401
