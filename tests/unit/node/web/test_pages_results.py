"""The pages while a result is made, and while it waits for a person."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from node.cases import CaseState, Stage
from tests.web_cases import WebNode


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_a_held_result_needs_attention_and_says_what_held_it(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.held("1.2.1")
    listed = client.get("/?state=rejected&state=failed&state=held").text
    assert re.search(r'state=held" aria-current="true">Needs attention <span>1<', listed)
    for page in (listed, client.get(f"/cases/{case_id}").text):
        assert "Held for review" in page
        assert "RESULT_HELD" in page
        assert "<li>INPUT_MISSING: there is no t2" in page
        assert "<code>neuroseg cases release</code>" in page
        assert 'class="held"><span class="name">deliver' in page


def test_a_bar_shows_how_many_windows_are_done(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.attempt(case_id, Stage.CONVERT, CaseState.ASSEMBLED)
    for path in ("/", f"/cases/{case_id}"):
        assert "<progress" not in client.get(path).text
    node.run_windows(case_id, 7, 27)
    for path in ("/", f"/cases/{case_id}"):
        page = client.get(path).text
        (bar,) = re.findall(r"<progress ([^>]*)>", page)
        assert bar == 'max="27" value="7" aria-label="Windows segmented"'
        assert "window 7 of 27" in page


def test_regions_and_confidence_stand_below_the_labels(node: WebNode, client: TestClient) -> None:
    page = _text(client.get(f"/cases/{node.delivered('1.2.1')}").text)
    assert page.index("Enhancing tumour 12.7") < page.index("Taken together these overlap")
    assert "Whole tumour 61.4 mL" in page
    assert "Enhancing tumour 0.12" in page
    assert "95th percentile of the tumour 0.74" in page
    assert "Mean of 8 mirrored copies" in page


def test_lesions_stand_below_the_volumes(node: WebNode, client: TestClient) -> None:
    page = _text(client.get(f"/cases/{node.delivered('1.2.1')}").text)
    assert "1 58.3 mL 12.7 mL 41.3 \N{MULTIPLICATION SIGN} 28.9 mm" in page
    assert "2 3.1 mL \N{EN DASH} \N{EN DASH}" in page


def test_a_released_result_says_when(node: WebNode, client: TestClient) -> None:
    case_id = node.held("1.2.1")
    node.ledger.release(case_id)
    page = client.get(f"/cases/{case_id}").text
    assert "RESULT_HELD" not in page
    assert "<dt>Released</dt>" in page
