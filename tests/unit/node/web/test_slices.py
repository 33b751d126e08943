"""Slices of a result by HTTP, and the page that leafs through them without a script."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from tests.web_cases import WebNode
from tests.web_pictures import voxels


def picture(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.fixture
def case(node: WebNode) -> str:
    return f"/api/v1/cases/{node.delivered('1.2.1')}"


def test_each_slice_is_given_out_as_it_was_kept(client: TestClient, case: str) -> None:
    _, layers = voxels()
    said = client.get(case).json()["slices"]
    assert said["sequences"] == ["t1gd", "flair"]
    assert [(one["name"], one["count"], one["first"]) for one in said["planes"]] == [
        ("axial", 46, 29),
        ("coronal", 56, 20),
        ("sagittal", 44, 30),
    ]
    axial, coronal, _ = (one["url"] for one in said["planes"])
    assert np.array_equal(picture(client.get(f"{axial}/29").content)[..., 0], layers[0, 28])
    flair = client.get(f"{coronal}/20?sequence=flair")
    assert flair.headers["content-type"] == "image/png"
    assert np.array_equal(picture(flair.content)[..., 0], layers[1, ::-1, 19])


def test_labels_are_given_out_alone_or_together(
    node: WebNode, client: TestClient, case: str
) -> None:
    path = f"{case}/slices/axial/29/labels"
    colors = [one.color_rgb for one in node.manifest.segments]
    for wanted, drawn in (
        ("", colors),
        ("?label=1&label=3", [colors[0], colors[2]]),
        ("?label=0", []),
    ):
        pixels = picture(client.get(path + wanted).content).reshape(-1, 4)
        found = {tuple(map(int, one)) for one in np.unique(pixels[pixels[:, 3] == 255], axis=0)}
        assert found == {(*color, 255) for color in drawn}


def test_a_picture_that_is_known_is_not_sent_again(client: TestClient, case: str) -> None:
    path = f"{case}/slices/sagittal/1"
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"{path}?sequence=flair", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200
    assert first.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("axial/0", 400, "REQUEST_INVALID"),
        ("axial/47", 400, "REQUEST_INVALID"),
        ("axial/1e1", 400, "REQUEST_INVALID"),
        ("oblique/1", 400, "REQUEST_INVALID"),
        ("axial/1?sequence=t2", 400, "REQUEST_INVALID"),
        ("axial/1/labels?label=-1", 400, "REQUEST_INVALID"),
    ],
)
def test_what_is_not_there_is_refused(
    client: TestClient, case: str, path: str, status: int, code: str
) -> None:
    answer = client.get(f"{case}/slices/{path}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_case_without_kept_slices_has_none_and_shows_its_preview(
    node: WebNode, client: TestClient, case: str
) -> None:
    case_id = case.rpartition("/")[2]
    (node.spool.case_folder(case_id) / "slices.npy").unlink()
    assert client.get(case).json()["slices"] is None
    assert client.get(f"{case}/slices/axial/1").json()["code"] == "CASE_FILE_ABSENT"
    page = client.get(f"/cases/{case_id}").text
    assert 'id="slices"' not in page
    assert f"{case}/preview.png" in page


def test_the_page_leafs_by_its_address(node: WebNode, client: TestClient, case: str) -> None:
    case_id = case.rpartition("/")[2]
    page = client.get(f"/cases/{case_id}").text
    assert page.count(" checked>") == 1 + len(node.manifest.segments)
    assert re.search(r'alt="Axial slice 29 of 46, T1gd"', page)
    query = "sequence=flair&label=3&axial=9999&coronal=7&sagittal=x"
    page = client.get(f"/cases/{case_id}?{query}").text
    assert re.findall(r'alt="(\w+ slice [^"]+)"', page) == [
        "Axial slice 46 of 46, FLAIR",
        "Coronal slice 7 of 56, FLAIR",
        "Sagittal slice 30 of 44, FLAIR",
    ]
    assert re.findall(r'name="label" value="(\d)" checked', page) == ["3"]
    sources = [
        one.replace("&amp;", "&") for one in re.findall(r'<img class="\w+" src="([^"]+)"', page)
    ]
    assert len(sources) == 6
    assert all(client.get(one).status_code == 200 for one in sources)
    assert 'http-equiv="refresh"' not in page  # a reader without scripts leafs undisturbed
