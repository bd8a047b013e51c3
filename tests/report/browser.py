"""A headless Chromium, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
START = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
os.dup2(kept[0], 3)
os.dup2(kept[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, with the protocol's pipes as the descriptors 3 and 4."""
PATIENCE = 120.0
"""Seconds that an answer may take on a machine that has much else to do."""


def program() -> str | None:
    """Returns Chromium's path, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser, and what it said on its console."""

    def __init__(self, reads: int, writes: int):
        self.reads, self.writes = reads, writes
        self.pending = b""
        self.count = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.pending:
            if not select.select([self.reads], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self.reads, 1 << 20)
            if not part:
                raise EOFError("the browser ended")
            self.pending += part
        first, _, self.pending = self.pending.partition(b"\0")
        return json.loads(first)

    def run(self, script: str) -> Any:
        """Returns what an expression of JavaScript is, once it is settled."""
        found = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def open(self, path: Path, width: int = 1280, height: int = 900, fragment: str = "") -> None:
        """Loads a file and waits until its figures are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.events.clear()
        # a new document even where only what follows the # differs
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.absolute().as_uri()}{fragment}")
        drawn = "document.readyState === 'complete' && !!document.documentElement.dataset.drawn"
        end = time.monotonic() + PATIENCE
        while not self.run(drawn):
            if time.monotonic() > end or self.complaints():
                break
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Presses a key: ``Tab``, ``Enter`` or `` ``."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        name = "Space" if key == " " else key
        text = {"Enter": "\r", " ": " "}.get(key)
        more = {} if text is None else {"text": text}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=name,
                windowsVirtualKeyCode=code,
                **(more if kind == "keyDown" else {}),
            )

    def complaints(self) -> list[str]:
        """Returns the errors and warnings of the page so far, and what it wanted to load."""
        self.run("0")  # what was said before this answer is here now
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params)[:1000])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(json.dumps(params["args"])[:1000])
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:", "about:")):
                    found.append(f"wants to load {url}")
        return found

    def screenshot(self, path: Path) -> None:
        """Writes the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def opened() -> Iterator[Page]:
    """Starts Chromium with a profile of its own, and ends it."""
    path = program()
    assert path is not None
    to_read, to_write = os.pipe(), os.pipe()  # as the browser sees them
    flags = [*FLAGS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", START, str(to_read[0]), str(to_write[1])),
                *(path, *flags, f"--user-data-dir={folder}", "about:blank"),
            ],
            pass_fds=(to_read[0], to_write[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        page = Page(to_write[0], to_read[1])
        try:
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_read[1])
            os.close(to_write[0])
