"""The status page and the page of a case."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from converters.sequences import SeriesKey
from node.access import Gate
from node.cases import CaseState, Ending, ObjectKind, SeriesDecision
from node.settings import Web
from node.web import downloads
from node.web.app import create_app
from tests.web_cases import WebNode, unused

RESEARCH = "Research use only"
_VOID = {"meta", "link", "img", "br", "input", "hr"}


class _Outline(HTMLParser):
    """Reads a page, and complains about tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_an_empty_node_says_how_to_send_a_study(node: WebNode, client: TestClient) -> None:
    page = _text(client.get("/").text)
    assert "Send a first study" in page
    assert "storescu +sd +r -aec NEUROSEG 127.0.0.1 11112 path/to/study" in page
    assert "FLAIR , T1w and T1gd ; it is better with T2w ." in page
    assert "DEMONSTRATION" in page
    assert node.manifest.model_id in page
    assert "not loaded" in page


def test_a_model_that_is_no_demonstration_has_no_badge(node: WebNode) -> None:
    real = node.manifest.model_copy(update={"demonstration": False})
    app = create_app(node.ledger, node.spool, node.settings, real, node.intake(), Gate.load(Web()))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        page = client.get("/").text
    assert "DEMONSTRATION" not in page


def test_an_open_case_shows_what_has_arrived(node: WebNode, client: TestClient) -> None:
    node.receive("1.2.1", roles=("flair", "t1"), slices=5)
    page = _text(client.get("/").text)
    assert "Receiving" in page
    assert "10 images in 2 series so far" in page


@pytest.mark.parametrize("story", ["rejected", "failed"])
def test_a_case_that_ended_shows_the_code_of_the_api(
    node: WebNode, client: TestClient, story: str
) -> None:
    case_id = getattr(node, story)("1.2.1")
    known = client.get(f"/api/v1/cases/{case_id}").json()
    for address in ("/", f"/cases/{case_id}"):
        page = client.get(address).text
        assert known["code"] in page
        assert story.capitalize() in _text(page)
        sentence = known["sentence"].replace("'", "&#39;")
        assert sentence in page
        assert known["advice"].split("`")[0] in page


_SCRIPTS = ("/static/refresh.js", "/static/slices.js")


def test_a_missing_role_is_named_where_the_case_is_listed(
    node: WebNode, client: TestClient
) -> None:
    node.rejected("1.2.1")
    page = _text(client.get("/").text)
    assert re.search(r"T1w missing T1gd missing", page)


def test_a_delivered_case_shows_picture_volumes_and_downloads(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.delivered("1.2.1")
    listed = client.get("/").text
    assert "48.3" in listed
    page = client.get(f"/cases/{case_id}").text
    outline = _Outline(page)
    pictures = [attributes for attributes in outline.all("img") if attributes.get("alt")]
    assert [client.get(str(one["src"])).status_code for one in pictures] == [200] * 7
    links = {str(one["href"]) for one in outline.all("a") if "download" in one}
    assert len(links - {f"/api/v1/cases/{case_id}/log.jsonl"}) == 14
    assert len(links) == len(downloads.files_of(["flair"])) + 1
    assert all(client.get(link).status_code == 200 for link in links)
    assert "C-STORE" in page
    assert "1.2.1" in page


def test_the_list_names_no_study(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.7654321")
    assert "1.2.7654321" not in client.get("/").text


def test_a_delivery_that_waits_shows_its_reason_and_advice(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.encode(case_id)
    error = node.fail_delivery(case_id)
    for address in ("/", f"/cases/{case_id}"):
        page = client.get(address).text
        assert error.code in page
        assert str(error) in page
        assert error.advice in page
        assert "Delivering" in page


def test_each_destination_is_shown_with_its_next_try_and_how_to_try_at_once(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    seg = node.encode(case_id)
    error = node.fail_delivery(case_id, next_in_s=60.0)
    page = _text(client.get(f"/cases/{case_id}").text)
    assert "will be tried again 0 of 1 stored 1" in page
    assert "Try deliveries now" in page
    (standing,) = client.get(f"/api/v1/cases/{case_id}").json()["destinations"]
    assert (standing["state"], standing["code"]) == ("retry", error.code)
    assert standing["next_at"]
    node.deliver(seg)
    page = _text(client.get(f"/cases/{case_id}").text)
    assert "stored 1 of 1 stored 2" in page
    assert "Try deliveries now" not in page
    (standing,) = client.get(f"/api/v1/cases/{case_id}").json()["destinations"]
    assert (standing["state"], standing["code"], standing["next_at"]) == ("stored", None, None)
    assert standing["committed_count"] is None


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}{% raw %}",
        "'-alert(1)-'",
        "\N{RIGHT-TO-LEFT OVERRIDE}txet",
        "</bdi></th><svg onload=alert(1)>",
    ],
)
def test_a_description_from_the_peer_is_only_text(
    node: WebNode, client: TestClient, hostile: str
) -> None:
    case_id = node.receive("1.2.1")
    more = SeriesDecision(
        series_instance_uid="1.2.1.9",
        description=hostile,
        sequence="other: DWI",
        role=None,
        score=0.0,
        reason="no input",
        instance_count=1,
        is_whole=True,
    )
    node.close(case_id, more=[more])
    page = client.get(f"/cases/{case_id}").text
    outline = _Outline(page)
    assert [one["src"] for one in outline.all("script")] == list(_SCRIPTS)
    assert outline.all("img") == []
    assert not [attributes for _, attributes in outline.tags if _is_active(attributes)]
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", page)
    known = client.get(f"/api/v1/cases/{case_id}").json()
    assert hostile in {one["description"] for one in known["series"]}


def _is_active(attributes: dict[str, str | None]) -> bool:
    return any(name.startswith("on") or name == "style" for name in attributes)


def test_every_page_is_well_formed_self_contained_and_marked(
    node: WebNode, client: TestClient
) -> None:
    node.beat("receive", "work", "infer", "web")
    ids = [
        node.receive("1.2.1"),
        node.delivered("1.2.2"),
        node.rejected("1.2.3"),
        node.failed("1.2.4"),
    ]
    addresses = ["/", "/?state=cancelled", "/nothing", *(f"/cases/{case_id}" for case_id in ids)]
    for address in addresses:
        page = client.get(address).text
        outline = _Outline(page)
        assert RESEARCH in page
        assert not [attributes for _, attributes in outline.tags if _is_active(attributes)]
        wanted = _SCRIPTS if "/cases/" in address else _SCRIPTS[:1]
        assert [one["src"] for one in outline.all("script")] == list(wanted)
        assert outline.all("style") == []
        if "/cases/" not in address or address.endswith(ids[0]):  # the others have ended
            assert 'http-equiv="refresh"' in page.split("<noscript>")[1].split("</noscript>")[0]
        used = [str(one.get("src") or one.get("href")) for _, one in outline.tags]
        outside = [one for one in used if one != "None" and not one.startswith(("/", "#"))]
        assert outside == []
        assert len(outline.all("h1")) == 1


def test_what_the_pages_refer_to_exists(client: TestClient) -> None:
    outline = _Outline(client.get("/").text)
    used = [one["href"] for one in outline.all("link")] + [
        one["src"] for one in outline.all("script")
    ]
    assert len(used) == 3
    for address in used:
        answer = client.get(str(address))
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"


def test_a_long_list_is_cut_into_pages(node: WebNode, client: TestClient) -> None:
    for number in range(27):
        node.receive(f"1.2.{number}", roles=("flair",), slices=1)
    first, second = client.get("/").text, client.get("/?offset=25").text
    assert "1\N{EN DASH}25 of 27" in _text(first)
    assert 'href="/?offset=25"' in first
    assert "26\N{EN DASH}27 of 27" in _text(second)
    assert 'rel="prev" href="/"' in second


def test_a_filter_keeps_its_states_on_further_pages(node: WebNode, client: TestClient) -> None:
    node.rejected("1.2.1")
    node.rejected("1.2.2")
    page = client.get("/?state=rejected&state=failed&state=held&limit=1").text
    assert 'href="/?state=rejected&amp;state=failed&amp;state=held&amp;offset=1"' in page or (
        'href="/?state=rejected&state=failed&state=held&offset=1"' in page
    )
    assert re.search(r'href="/\?state=rejected[^"]*held" aria-current="true"', page)


def test_an_ae_title_with_a_space_is_quoted_in_the_example(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    node = WebNode.create(tmp_path_factory.mktemp("n"), receive={"ae_title": "NEURO SEG"})
    with TestClient(node.app(), base_url="http://127.0.0.1") as client:
        assert "storescu +sd +r -aec &#39;NEURO SEG&#39;" in client.get("/").text
    node.ledger.close()


def test_a_node_bound_to_every_address_names_the_one_that_was_used(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    token = "t" * 24
    web = {"host": "0.0.0.0", "tokens": f"viewer reading {token}"}
    node = WebNode.create(tmp_path_factory.mktemp("n"), receive={"host": "0.0.0.0"}, web=web)
    with TestClient(node.app(), base_url="http://192.0.2.7:8080") as client:
        page = client.get("/", headers={"authorization": f"Bearer {token}"})
    assert "NEUROSEG 192.0.2.7 11112" in page.text
    node.ledger.close()


def test_an_earlier_revision_is_linked(node: WebNode, client: TestClient) -> None:
    first = node.rejected("1.2.1")
    second = node.receive("1.2.1", slices=4)
    assert first != second
    assert f'href="/cases/{first}"' in client.get(f"/cases/{second}").text
    assert "Superseded" in client.get(f"/cases/{first}").text
    (earlier,) = client.get(f"/api/v1/cases/{second}").json()["earlier"]
    assert earlier == {"case_id": first, "revision": 1}


def test_every_state_has_its_words(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    shown = []
    for state in (CaseState.ASSEMBLED, CaseState.SEGMENTED, CaseState.ENCODED):
        shown.append(_badge(client.get(f"/cases/{case_id}").text))
        node.ledger.move(case_id, state)
    shown.append(_badge(client.get(f"/cases/{case_id}").text))
    ending = Ending(
        state=CaseState.CANCELLED, code="CASE_CANCELLED", sentence="it was cancelled", advice=""
    )
    node.ledger.end_case(case_id, ending)
    shown.append(_badge(client.get(f"/cases/{case_id}").text))
    assert shown == [
        "Waiting for conversion",
        "Waiting for the model",
        "Writing the result",
        "Delivering",
        "Cancelled",
    ]


def _badge(page: str) -> str:
    match = re.search(
        r'<span class="badge [a-z]+">(.*?)</span>\s*(?:<strong|</div>)', page, re.DOTALL
    )
    assert match is not None
    return _text(match[1]).strip()


@pytest.mark.parametrize("kind", [ObjectKind.SEG, ObjectKind.REPORT])
def test_a_result_without_a_tumour_says_so_and_what_was_made_of_it(
    node: WebNode, client: TestClient, kind: ObjectKind
) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    seg = node.encode(case_id)
    assert "No tumour was found" not in client.get(f"/cases/{case_id}").text
    empty = node.receive("1.2.2")
    for state in (CaseState.COMPLETE, CaseState.ASSEMBLED, CaseState.SEGMENTED):
        node.ledger.move(empty, state)
    summary = {"volumes_ml": {"Oedema": 0.0, "Enhancing tumour": 0.0}}
    node.ledger.save_result(replace(seg, case_id=empty, kind=kind), summary=summary)
    page = client.get(f"/cases/{empty}").text
    assert "No tumour was found" in page
    assert ("there is no SEG" in page) == (kind is ObjectKind.REPORT)


def test_notes_and_labels_of_another_model_are_shown(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    seg = node.encode(case_id)
    summary = {"volumes_ml": {"Whole <tumour>": 61.2}, "notes": ["resampled & checked"]}
    newer = node.receive("1.2.2")
    for state in (CaseState.COMPLETE, CaseState.ASSEMBLED, CaseState.SEGMENTED):
        node.ledger.move(newer, state)
    node.ledger.save_result(replace(seg, case_id=newer), summary=summary)
    page = client.get(f"/cases/{newer}").text
    assert "Whole &lt;tumour&gt;" in page
    assert "resampled &amp; checked" in page
    assert "61.2" in page
    assert "Confidence" not in page  # nothing is known of it, nor of regions
    assert "Taken together" not in page


def test_the_series_table_says_what_the_command_line_says(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    second_echo = unused("1.2.1", 5, part="EchoTime=11", runner_up="T2w 0.45")
    broken = unused(
        "1.2.1", 6, sequence="T1w", is_whole=False, geometry="19 slices", code="GEOM_MISSING_SLICE"
    )
    node.close(case_id, more=[second_echo, broken])
    page = client.get(f"/cases/{case_id}").text
    _Outline(page)
    text = _text(page)
    assert "4 T2w axial T2w T2w 0.97 PD 0.20 3 3 slices, 0.90 x 0.90 x 4.00 mm, axial, 2-D" in text
    assert "of it EchoTime=11" in text
    assert "0.90 T2w 0.45 66" in text
    assert "19 slices, no volume" in text
    assert "GEOM_MISSING_SLICE" in text


def test_the_fault_of_a_series_that_could_not_serve_is_not_made_much_of(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id, more=[unused("1.2.1", 5, is_whole=False, code="GEOM_DUPLICATE_SLICE")])
    assert "GEOM_DUPLICATE_SLICE" not in client.get(f"/cases/{case_id}").text
    series = client.get(f"/api/v1/cases/{case_id}").json()["series"]
    assert "GEOM_DUPLICATE_SLICE" in {one["code"] for one in series}


def test_an_open_case_says_what_it_waits_for_and_what_it_takes_its_series_for(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1", roles=("flair",), slices=2)
    assert "Waits for" not in client.get(f"/cases/{case_id}").text
    node.wait(case_id, "12 images of 1 series that the PACS has")
    page = _text(client.get(f"/cases/{case_id}").text)
    assert "Waits for 12 images of 1 series that the PACS has" in page
    assert "Closed by" not in page
    assert "2 images in 1 series" in page
    assert "So far; decided when the case closes." in page


def test_how_far_each_series_was_moved_is_shown(node: WebNode, client: TestClient) -> None:
    page = _text(client.get(f"/cases/{node.delivered('1.2.1')}").text)
    assert "FLAIR moved 7.4 mm 3.1\N{DEGREE SIGN} moved by 7.4 mm and 3.1" in page
    assert "T2w headers kept 0.1 mm 0.0\N{DEGREE SIGN} headers kept: the best fit lies" in page
    assert "INPUT_UNUSUAL: the image reaches beyond the head" in page


def test_a_series_chosen_by_hand_is_marked(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    node.wait(case_id, "silence")
    assert "chosen by hand" not in client.get(f"/cases/{case_id}").text
    roles = node.manifest.roles
    node.ledger.choose_series(case_id, {"t2": SeriesKey("1.2.1.1")}, roles=roles)
    assert "chosen by hand" in client.get(f"/cases/{case_id}").text
