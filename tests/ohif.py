"""OHIF in front of an archive, and what it holds and draws of an object, voxel by voxel.

The built files of `@ohif/app` are used as they are (`scripts/install_test_tools.sh`); the archive
answers under the same origin, as it does behind a hospital's proxy.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from converters.series import Stack
from tests import browser, peers
from tests.browser import Page
from tests.peers import Orthanc
from tests.web_cases import served

_WIDTH, _HEIGHT = 1280, 800
_PATIENCE_S = 90.0
_ORIGIN = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "Archive",
                **dict.fromkeys(("qidoRoot", "wadoRoot", "wadoUriRoot"), "/dicom-web"),
                "qidoSupportsIncludeField": False,
                "supportsFuzzyMatching": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            },
        }
    ],
}
PROBE = """
const bytes = (imageId) => {
  const values = new Uint8Array(cornerstone.cache.getImage(imageId).voxelManager.getScalarData());
  let text = "";
  for (let at = 0; at < values.length; at += 8192)
    text += String.fromCharCode(...values.subarray(at, at + 8192));
  return btoa(text);
};
window.probe = {
  displaySet: (series) => services.displaySetService.getActiveDisplaySets()
    .find((one) => one.SeriesInstanceUID === series),
  listed: () => services.displaySetService.getActiveDisplaySets()
    .map((one) => [one.SeriesInstanceUID, one.Modality, one.SeriesDescription]),
  pick: (series) => document.getElementById(
      `thumbnail-${probe.displaySet(series).displaySetInstanceUID}`)
    .dispatchEvent(new MouseEvent("dblclick", {bubbles: true, cancelable: true})),
  button: (text) => [...document.querySelectorAll("button")]
    .find((one) => one.innerText.trim() === text),
  segmentation: (series) => services.segmentationService.getSegmentation(
    probe.displaySet(series)?.displaySetInstanceUID),
  viewport: () => services.cornerstoneViewportService.getCornerstoneViewport(
    services.viewportGridService.getActiveViewportId()),
  color: (found, number) => services.segmentationService.getSegmentColor(
    services.viewportGridService.getActiveViewportId(), found.segmentationId, number),
  isColored: (series) => {
    const found = probe.segmentation(series);
    return found && Object.keys(found.segments).every((one) => probe.color(found, Number(one)));
  },
  held: (series) => {
    const found = probe.segmentation(series);
    return {
      segments: Object.values(found.segments)
        .map((one) => [one.segmentIndex, one.label, [...probe.color(found, one.segmentIndex)]]),
      layers: Object.values(found.representationData.Labelmap.labelmaps).map((layer) => ({
        segments: layer.labelToSegmentIndex,
        images: layer.imageIds.map((one) => [cornerstone.cache.getImage(one).referencedImageId,
          bytes(one)]),
      })),
    };
  },
  bytes,
  show: (image) => probe.viewport().setImageIdIndex(
    probe.viewport().getImageIds().findIndex((one) => one.endsWith(image))),
  isShown: (image) => probe.viewport().getCurrentImageId().endsWith(image),
  place: (points) => {
    const box = probe.viewport().element.getBoundingClientRect();
    return points.map((one) => probe.viewport().worldToCanvas(one))
      .map(([right, down]) => [down + box.top, right + box.left]);
  },
};
"""
"""What the page is asked by: to be run in it once OHIF has been loaded, or before."""
_SCRIPT = f"""
localStorage.setItem("shownTours", '["basicViewerTour"]');
window.config = {json.dumps(_CONFIGURATION)};
{PROBE}
"""


def require() -> Path:
    """Return the folder of OHIF's files; without it, or what it needs, skip or fail."""
    browser.require()
    peers.require("orthanc")
    peers.require("ohif")
    return peers.OHIF_FOLDER


def _front(archive: Orthanc, built: Path) -> Starlette:
    """Return OHIF's files and the archive's DICOMweb under one origin."""

    async def web(request: Request) -> Response:
        # One connection a request: Orthanc now and then drops a kept one without an answer.
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
            answer = await client.get(
                f"{archive.http_url}{request.url.path}",
                params=request.query_params,
                headers={name: request.headers[name] for name in ("accept", "host")},
            )
        kind = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, media_type=kind, headers=_ORIGIN)

    async def file(request: Request) -> Response:
        path = built / request.path_params["path"]
        return FileResponse(path if path.is_file() else built / "index.html", headers=_ORIGIN)

    async def configuration(_: Request) -> Response:
        return Response(_SCRIPT, media_type="text/javascript", headers=_ORIGIN)

    return Starlette(
        routes=[
            Route("/dicom-web/{rest:path}", web),
            Route("/app-config.js", configuration),
            Route("/{path:path}", file),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A Segmentation as OHIF holds it.

    Parameters
    ----------
    labels : mapping of int to str
        What it calls each segment.
    colors : mapping of int to tuple
        sRGB and opacity of each segment.
    layers : sequence of mappings
        Where segments overlap it holds several; each gives the segment numbers of a plane,
        (rows x columns,) flat, by SOP Instance UID and frame number of its source.
    """

    labels: Mapping[int, str]
    colors: Mapping[int, tuple[int, ...]]
    layers: Sequence[Mapping[tuple[str, int], NDArray[np.int64]]]

    def mask(
        self, number: int, sources: Sequence[Dataset], frames: Sequence[int] = ()
    ) -> NDArray[np.bool_]:
        """Return the voxels of a segment in the order of its sources, one header a slice."""
        shape = (sources[0].Rows, sources[0].Columns)
        keys = [
            (str(one.SOPInstanceUID), frame or 1)
            for one, frame in zip(sources, frames or [0] * len(sources), strict=True)
        ]
        assert all(set(layer) == set(keys) for layer in self.layers)
        return np.array(
            [
                np.any([layer[key].reshape(shape) == number for layer in self.layers], axis=0)
                for key in keys
            ]
        )


def _shown(held: dict[str, Any]) -> Shown:
    layers = []
    for layer in held["layers"]:
        numbers = np.zeros(256, np.int64)
        for value, number in layer["segments"].items():
            numbers[int(value)] = number
        planes: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
        for uid, text in layer["images"]:  # several of one source where segments overlap
            planes.setdefault(_key(uid), []).append(numbers[_values(text)])
        layers += [
            dict(zip(planes, one, strict=True)) for one in zip(*planes.values(), strict=True)
        ]
    return Shown(
        labels={number: label for number, label, _ in held["segments"]},
        colors={number: tuple(color) for number, _, color in held["segments"]},
        layers=layers,
    )


def _key(image_id: str) -> tuple[str, int]:
    """Return SOP Instance UID and frame number of an image's address."""
    parts = image_id.split("/")
    return parts[parts.index("instances") + 1], int(parts[parts.index("frames") + 1])


def _values(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(base64.b64decode(text), np.uint8)


class Viewer:
    """OHIF in one tab."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self._address = address
        page.show(width=_WIDTH, height=_HEIGHT)

    def open_study(self, study_uid: str, *, series_count: int) -> None:
        """Load a study, wait until so many series are listed, and show the list of segments."""
        self.page.open(f"{self._address}/viewer?StudyInstanceUIDs={study_uid}")
        self._until(f"document.querySelectorAll('[id^=thumbnail-]').length >= {series_count}")
        self._click("[data-cy=panelSegmentation-btn]")

    def listed(self) -> dict[str, tuple[str, str]]:
        """Return modality and description of each listed series by its UID."""
        found = self.page.value("probe.listed()")
        return {uid: (modality, description) for uid, modality, description in found}

    def open_segmentation(self, series_uid: str) -> Shown:
        """Double-click a Segmentation, agree to open it, and return what is then held of it."""
        self.page.value(f"probe.pick('{series_uid}')")
        self._until("probe.button('Yes')")
        self.page.value("probe.button('Yes').click()")
        self._until(f"probe.isColored('{series_uid}')")
        return _shown(self.page.value(f"probe.held('{series_uid}')"))

    def open_images(self, series_uid: str) -> list[NDArray[np.uint8]]:
        """Double-click a series of pictures and return their values as held, in order."""
        self.page.value(f"probe.pick('{series_uid}')")
        self._until(
            f"probe.viewport()?.getImageIds?.()?.every((one) => one.includes('{series_uid}')"
            " && cornerstone.cache.getImage(one))"
        )
        found = self.page.value("probe.viewport().getImageIds().map(probe.bytes)")
        return [_values(text) for text in found]

    def _click(self, selector: str) -> None:
        self.page.value(f"document.querySelector('{selector}').click()")

    def draw(self, stack: Stack, index: int, path: Path) -> NDArray[np.uint8]:
        """Turn to a slice, save what is on the screen, and return the colour at each voxel.

        Parameters
        ----------
        stack : Stack
            The series on which a Segmentation was opened.
        index : int
            Of the slice.
        path : Path
            Of the PNG.

        Returns
        -------
        (rows, columns, 3) ndarray of uint8
            sRGB on the screen at the centre of each voxel, or where the screen ends before it.
        """
        image = f"/{stack.headers[index].SOPInstanceUID}/frames/{stack.frames[index] or 1}"
        self.page.value(f"probe.show('{image}')")
        self._until(f"probe.isShown('{image}')")
        self._until("!document.body.innerText.includes('Loading...')")
        _, rows, columns = stack.grid.shape
        corners = np.array([[index, 0, 0], [index, rows - 1, 0], [index, 0, columns - 1]], float)
        first, last_row, last_column = np.array(
            self.page.value(f"probe.place({stack.grid.lps_mm(corners).tolist()})")
        )
        at = (
            first
            + np.arange(rows)[:, None, None] * (last_row - first) / (rows - 1)
            + np.arange(columns)[:, None] * (last_column - first) / (columns - 1)
        )
        self.page.screenshot(path)
        screen = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
        down, right = np.moveaxis(at.clip(0, np.array(screen.shape[:2]) - 1).astype(int), -1, 0)
        found: NDArray[np.uint8] = screen[down, right]
        return found

    def _until(self, expression: str) -> None:
        self.page.until(f"window.services && ({expression})", timeout_s=_PATIENCE_S)


@contextmanager
def viewer(archive: Orthanc, profile: Path) -> Iterator[Viewer]:
    """Serve OHIF in front of an archive and open it in a browser with an empty profile."""
    with served(_front(archive, require())) as address, browser.page(profile) as page:
        yield Viewer(page, address)
