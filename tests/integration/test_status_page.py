"""The pages in a real browser: they keep themselves up to date and can be read by everybody."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from node import logs
from node.cases import CaseState, Stage
from tests import axe, peers
from tests.browser import Page
from tests.web_cases import WebNode, served, unused

pytestmark = pytest.mark.integration

DESKTOP, PHONE = 1280, 390
_PATHS = {
    "status": "/",
    "system": "/system",
    "models": "/models",
    "docs": "/docs",
    "error": "/nothing",
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path / "spool")
    made.beat("receive", "work", "infer", "web")
    yield made
    made.ledger.close()


@pytest.fixture
def address(node: WebNode) -> Iterator[str]:
    with served(node.app()) as found:
        yield found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return where the screens are kept."""
    folder = Path(os.environ.get("NEUROSEG_TEST_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fill(node: WebNode) -> dict[str, str]:
    """Put cases of every kind into the ledger; return them by kind."""
    waiting = node.receive("1.2.1")
    node.close(waiting)
    node.encode(waiting)
    node.fail_delivery(waiting)
    running = node.receive("1.2.2")
    node.close(running)
    node.attempt(running, Stage.CONVERT, CaseState.ASSEMBLED)
    node.ledger.begin_attempt(running, Stage.SEGMENT)
    node.run_windows(running, 11, 27)
    return {
        "held": node.held("1.2.9"),
        "waiting": waiting,
        "running": running,
        "delivered": node.delivered("1.2.3"),
        "rejected": node.rejected("1.2.4"),
        "failed": node.failed("1.2.5"),
        "open": node.receive("1.2.6", roles=("flair",)),
        "awaited": _awaited(node, "1.2.7"),
        "many": _many(node, "1.2.8"),
    }


def _awaited(node: WebNode, study: str) -> str:
    """Return an open case that says what it waits for."""
    case_id = node.receive(study, roles=("flair",))
    node.wait(case_id, "STUDY_SEQUENCE_MISSING: no series serves as t1, t1gd, t2; found FLAIR")
    return case_id


def _many(node: WebNode, study: str) -> str:
    """Return a case with series of every kind."""
    case_id = node.receive(study)
    long = "t1_mprage_sag_p2_iso_1.0mm_post_contrast_with_a_name_that_does_not_end_here"
    more = [
        unused(study, 5, part="EchoTime=11", runner_up="T2w 0.45", description=long),
        unused(study, 6, sequence="T1w", is_whole=False, code="GEOM_MISSING_SLICE"),
    ]
    node.close(case_id, more=more)
    return case_id


def _words(case_id: str) -> str:
    return f"(document.getElementById('case-{case_id}')?.innerText ?? '')"


def test_the_status_page_follows_a_case_without_being_loaded_again(
    node: WebNode, address: str, page: Page
) -> None:
    page.open(f"{address}/")
    assert "Send a first study" in page.value("document.body.innerText")
    page.value("window.isSame = true")

    case_id = node.receive("1.2.1")
    page.until(f"{_words(case_id)}.includes('Receiving')")
    node.close(case_id)
    page.until(f"{_words(case_id)}.includes('Waiting for conversion')")
    seg = node.encode(case_id)
    page.until(f"{_words(case_id)}.includes('48.3')")
    page.until("document.querySelector('.thumb img')?.naturalWidth > 0")
    node.fail_delivery(case_id)
    page.until(f"{_words(case_id)}.includes('PEER_UNAVAILABLE')")
    node.deliver(seg)
    page.until(f"{_words(case_id)}.includes('Delivered')")
    assert "PEER_UNAVAILABLE" not in page.value(_words(case_id))

    assert page.value("window.isSame") is True
    assert page.complaints() == []


def test_what_the_reader_did_to_the_page_stays(node: WebNode, address: str, page: Page) -> None:
    case_id = node.receive("1.2.1")
    page.open(f"{address}/cases/{case_id}")
    page.value("document.getElementById('identifiers').open = true")
    page.value("document.querySelector('summary').focus()")
    node.close(case_id)
    page.until("document.getElementById('main').innerText.includes('all series whole')")
    assert page.value("document.getElementById('identifiers').open") is True
    assert page.value("document.activeElement.nodeName") == "SUMMARY"


def test_a_new_case_does_not_take_the_focus_from_an_older_one(
    node: WebNode, address: str, page: Page
) -> None:
    first = node.receive("1.2.1")
    page.open(f"{address}/")
    page.value(f"document.querySelector('#case-{first} .id').focus()")
    second = node.receive("1.2.2")
    page.until(f"document.getElementById('case-{second}') !== null")
    assert page.value("document.activeElement.closest('tr')?.id") == f"case-{first}"
    assert page.value("document.querySelector('tbody tr').id") == f"case-{second}"


def test_a_node_that_went_away_is_said_so(node: WebNode, page: Page) -> None:
    node.receive("1.2.1")
    with served(node.app()) as address:
        page.open(f"{address}/")
        assert page.value("document.getElementById('lost').checkVisibility()") is False
    page.until("document.getElementById('lost').checkVisibility()")
    assert "Receiving" in page.value("document.body.innerText")


@pytest.fixture
def tour(node: WebNode, tmp_path: Path) -> Iterator[Iterator[tuple[str, str]]]:
    """Yield every page by name: those that people see before there is a case, then all others."""
    shut = WebNode.create(tmp_path / "shut", web={"tokens": f"viewer somebody {'t' * 24}"})

    def pages(address: str, shut_address: str) -> Iterator[tuple[str, str]]:
        yield "login", f"{shut_address}/login"
        yield "first-run", f"{address}/"
        for name, case_id in _fill(node).items():
            yield f"case-{name}", f"{address}/cases/{case_id}"
        for name, path in _PATHS.items():
            yield name, address + path

    with served(node.app()) as address, served(shut.app()) as shut_address:
        yield pages(address, shut_address)
    shut.ledger.close()


def test_pages_fit(tour: Iterator[tuple[str, str]], page: Page) -> None:
    for name, address in tour:
        page.open(address)
        for width in (DESKTOP, 820, PHONE, 320):
            page.show(width=width, height=844)
            assert page.value("document.documentElement.scrollWidth") <= width, (name, width)


def test_nobody_stumbles_over_a_page(
    tour: Iterator[tuple[str, str]], page: Page, pictures: Path
) -> None:
    peers.require("axe")
    found = {}
    for name, address in tour:
        page.open(address)
        for width, is_dark in ((DESKTOP, False), (PHONE, True)):
            page.show(width=width, height=844, is_dark=is_dark)
            found[name, width] = axe.findings(page)
            page.screenshot(pictures / f"page-{name}-{'phone' if is_dark else 'desktop'}.png")
    assert {key: many for key, many in found.items() if many} == {}


def test_a_page_asks_nobody_but_the_node(node: WebNode, address: str, page: Page) -> None:
    cases = _fill(node)
    page.open(f"{address}/")
    page.open(f"{address}/cases/{cases['delivered']}")
    assert page.requested()
    assert [one for one in page.requested() if not one.startswith(address)] == []
    assert page.complaints() == []


def test_a_script_in_a_description_does_not_run(node: WebNode, address: str, page: Page) -> None:
    hostile = '<img src=x onerror="window.isOwned=true"><script>window.isOwned=true</script>'
    case_id = node.delivered("1.2.1", description=hostile)
    page.open(f"{address}/cases/{case_id}")
    assert hostile in page.value("document.body.innerText")
    assert page.value("window.isOwned === undefined") is True
    assert page.complaints() == []


def test_a_reader_without_scripts_gets_a_page_that_loads_itself_again(
    node: WebNode, address: str, page: Page
) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.navigate", url=f"{address}/")
    page.until_loaded_with("Send a first study")
    case_id = node.delivered("1.2.1")
    page.until_loaded_with(case_id)


def test_the_picture_of_the_page_is_no_blank(
    node: WebNode, address: str, page: Page, tmp_path: Path
) -> None:
    _fill(node)
    page.open(f"{address}/")
    page.screenshot(tmp_path / "status.png")
    shot = Image.open(io.BytesIO((tmp_path / "status.png").read_bytes())).convert("RGB")
    assert shot.width == DESKTOP
    assert shot.height > 900
    colors = shot.quantize(32).getcolors()
    assert colors is not None
    assert len(colors) > 8
