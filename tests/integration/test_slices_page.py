"""Leafing through slices in a real browser: by slider, by click, by wheel, and label by label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs
from tests.browser import Page
from tests.web_cases import WebNode, served

pytestmark = pytest.mark.integration


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path / "spool")
    made.beat("receive", "work", "infer", "web")
    yield made
    made.ledger.close()


def _until_shown(page: Page, view: str, grey: str, over: str) -> None:
    """Wait until a plane shows two pictures, by the ends of their addresses."""
    for kind, end in (("grey", grey), ("over", over)):
        image = f"document.querySelector('[data-view={view}] img.{kind}')"
        page.until(f"{image}.src.endsWith('{end}') && {image}.naturalWidth > 0")


def _press(page: Page, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
        )


def test_a_reader_leafs_with_keys_clicks_and_the_wheel(node: WebNode, page: Page) -> None:
    case_id = node.delivered("1.2.1")
    path = node.spool.case_folder(case_id) / "slices.npy"
    version = f"?v={path.stat().st_mtime_ns}"
    all_labels = f"labels{version}&label=1&label=2&label=3"
    with served(node.app()) as address:
        page.show(width=1280, height=900)
        page.open(f"{address}/cases/{case_id}")
        _until_shown(page, "axial", f"/29{version}&sequence=t1gd", f"/29/{all_labels}")

        page.value("document.getElementById('slice-axial').focus()")
        _press(page, "ArrowRight", 39)
        _until_shown(page, "axial", f"/30{version}&sequence=t1gd", f"/30/{all_labels}")
        assert page.value("document.querySelector('[data-view=axial] output').value") == "30 of 46"

        page.value("document.querySelector('input[value=flair]').click()")
        page.value("document.querySelector('input[name=label]').click()")
        without_first = f"labels{version}&label=2&label=3"
        for view, number in (("axial", 30), ("coronal", 20), ("sagittal", 30)):
            grey = f"/{number}{version}&sequence=flair"
            _until_shown(page, view, grey, f"/{number}/{without_first}")

        # The middle of the axial picture is the middle of the two other planes.
        place = page.value(
            "(() => { const box = document.querySelector('[data-view=axial] .stack')"
            ".getBoundingClientRect();"
            " return {x: box.x + box.width / 2 + 1, y: box.y + box.height / 2 + 1}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            page.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        _until_shown(page, "coronal", f"/29{version}&sequence=flair", f"/29/{without_first}")
        _until_shown(page, "sagittal", f"/23{version}&sequence=flair", f"/23/{without_first}")

        page.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=120, **place)
        _until_shown(page, "axial", f"/29{version}&sequence=flair", f"/29/{without_first}")
        assert page.value("window.scrollY") == 0

        # What the reader did stays when the page is brought up to date.
        node.ledger.move(case_id, node.ledger.case(case_id).state.SUPERSEDED)
        page.until("document.querySelector('.badge').innerText === 'Superseded'")
        _until_shown(page, "axial", f"/29{version}&sequence=flair", f"/29/{without_first}")
        assert page.complaints() == []
        if folder := os.environ.get("NEUROSEG_TEST_PICTURES"):
            page.screenshot(Path(folder) / "slices-leafed.png")
