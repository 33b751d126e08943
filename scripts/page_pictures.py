"""Photograph the pages of a running node for the documentation.

`make demo` in one terminal, `python -m scripts.page_pictures ADDRESS` in another: the list of
cases, and the oldest case with slices.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import httpx
from PIL import Image

from tests import browser
from tests.browser import Page

_WIDTH = 1280
_LOADED = "[...document.images].every((one) => one.complete && one.naturalWidth > 0)"
_EAGER = "for (const one of document.images) one.loading = 'eager'; true"


def _photograph(page: Page, address: str, path: Path, height: int) -> None:
    page.show(width=_WIDTH, height=height)
    page.open(address)
    page.value(_EAGER)
    page.until(_LOADED)
    page.screenshot(path)
    with Image.open(path) as whole:
        cut = whole.crop((0, 0, _WIDTH, min(height, whole.height)))
    cut.save(path, optimize=True)


def main() -> None:
    """Write status.png and case.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the pages, such as http://127.0.0.1:8080")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    wanted = parser.parse_args()
    cases = httpx.get(f"{wanted.address}/api/v1/cases").raise_for_status().json()["cases"]
    case = next(one for one in reversed(cases) if one["slices"])
    with tempfile.TemporaryDirectory() as profile, browser.page(Path(profile)) as page:
        _photograph(page, wanted.address, wanted.folder / "status.png", 945)
        _photograph(page, wanted.address + case["url"], wanted.folder / "case.png", 1180)


if __name__ == "__main__":
    main()
