"""Chromium without a window, driven over its debugging pipe: pages as a reader meets them."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_TIMEOUT_S = 60.0
_LOOK_MS = 5000  # a script that waits longer would be taken for a browser that does not answer


def executable() -> str | None:
    """Return where Chromium lies, None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def require() -> str:
    """Return where Chromium lies; without it skip, or fail where NEUROSEG_TEST_REQUIRE names it."""
    found = executable()
    if found is None:
        if "chromium" in os.environ.get("NEUROSEG_TEST_REQUIRE", "").replace(",", " ").split():
            pytest.fail("chromium is required here (NEUROSEG_TEST_REQUIRE) and is not installed")
        pytest.skip("chromium is not installed")
    return found


class Page:
    """One tab; `events` holds what the browser reported since it was opened."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:  # noqa: ANN401 - the protocol's JSON
        """Return the result of a command of the DevTools protocol."""
        answer = self._ask(method, **params)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                return answer

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], _TIMEOUT_S)
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 16)
            assert piece, "the browser ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "id" not in message:
            self.events.append(message)
        return message

    def show(self, *, width: int, height: int, is_dark: bool = False) -> None:
        """Set the size of the view in CSS pixels and the reader's colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page, its pictures included."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:  # noqa: ANN401 - whatever the script returns
        """Return what a script gives in the page, now or when its promise is kept."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, *, timeout_s: float = 60.0) -> None:
        """Wait until a script gives true; the round trip to the browser paces the loop."""
        script = (
            f"new Promise(done => {{ const end = Date.now() + {_LOOK_MS}; (function look() "
            f"{{ if ({expression}) done(true); else if (Date.now() > end) done(false); "
            "else setTimeout(look, 50); })(); })"
        )
        end = time.monotonic() + timeout_s
        while True:
            answer = self._ask(
                "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
            )
            # A navigation throws the promise away; ask again in the new document.
            if answer.get("result", {}).get("result", {}).get("value") is True:
                return
            assert time.monotonic() < end, f"never true: {expression}"

    def until_loaded_with(self, text: str, *, timeout_s: float = 30.0) -> None:
        """Wait until the document's source holds a text; needs no script in the page."""
        end = time.monotonic() + timeout_s
        while True:
            # The whole tree in one answer: a node's id does not survive the next loading.
            if text in json.dumps(self.call("DOM.getDocument", depth=-1)):
                return
            assert time.monotonic() < end, f"never loaded: {text}"
            select.select([self._answers], [], [], 0.2)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def forget(self) -> None:
        """Begin anew for another test: no page, no cookies, no events, scripts run."""
        self.call("Emulation.setScriptExecutionDisabled", value=False)
        self.call("Network.clearBrowserCookies")
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.events.clear()

    def complaints(self) -> list[str]:
        """Return what the browser reported as errors: scripts, policies, requests."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (
                event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error"
            )
        ]

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """Start the browser with an empty profile folder; yield its one tab."""
    browser = require()
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # Chromium reads commands from descriptor 3 and answers on descriptor 4.
    redirect = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
    process = subprocess.Popen(
        ["bash", "-c", redirect, "bash", browser, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(commands_out, answers_in),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        tab = Page(commands_in, answers_out)
        yield tab
        tab._session = None
        tab.call("Browser.close")
        process.wait(timeout=_TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(commands_in)
        os.close(answers_out)
