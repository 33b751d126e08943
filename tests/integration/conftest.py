"""A browser for the tests of pages: one for each file, as new for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import browser
from tests.browser import Page


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser.page(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(chromium: Page) -> Page:
    chromium.forget()
    chromium.show(width=1280, height=900)
    return chromium
