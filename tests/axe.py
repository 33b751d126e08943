"""axe-core in a page: what somebody would stumble over who sees, hears or handles it otherwise.

References
----------
WCAG 2.2, whose success criteria axe's rules are tagged with; `scripts/install_test_tools.sh`
fetches it as published.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tests import peers
from tests.browser import Page

_RUN = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"


@cache
def _script() -> str:
    return (peers.AXE_FOLDER / "axe.min.js").read_text(encoding="utf-8")


def findings(page: Page) -> list[str]:
    """Return what axe finds in the page as it is shown, the worst first: how bad, what, where."""
    if not page.value("typeof axe === 'object'"):
        page.value(f"{_script()}; true")
    found: list[dict[str, Any]] = page.value(_RUN)
    order = ("critical", "serious", "moderate", "minor")
    return [
        f"{one['impact']}: {one['id']}, {one['help']}: {json.dumps(_places(one))}"
        for one in sorted(found, key=lambda one: order.index(one["impact"]))
    ]


def _places(finding: dict[str, Any]) -> list[str]:
    return [str(node["html"]) for node in finding["nodes"]]
