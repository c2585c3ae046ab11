"""A real browser: what it says about a page, and whom it asks for what."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from support.packages import find

PHONE, DESKTOP = 390, 1280  # pixels


@dataclass
class Visit:
    """What came of opening a page.

    Attributes:
        complaints: errors and warnings of the console, exceptions, and violations of the content security policy.
        requests: the addresses that were asked for, the page's own first.
        width: how many pixels the page takes; more than the window has means that it scrolls sideways.
        text: what can be read on it.
    """

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    width: int = 0
    text: str = ""


class Chromium:
    """`with Chromium() as browser: browser.visit(url)`. It is spoken to through a pipe, in the DevTools protocol."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def __enter__(self) -> Chromium:
        reads, self.output = os.pipe()
        self.input, writes = os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (reads, writes)]

        def wire() -> None:
            for number, end in enumerate(theirs, 3):
                os.dup2(end, number)

        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.home.name}", *self.options]
        self.process = subprocess.Popen(
            [find("chromium", "chromium"), *options, "--remote-debugging-pipe"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # it reads from descriptor 3 and writes to 4
            preexec_fn=wire,
        )
        for end in (reads, writes, *theirs):
            os.close(end)
        self.buffer, self.number = b"", 0
        self.events: list[dict[str, Any]] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.send("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.input)
        os.close(self.output)
        self.home.cleanup()

    def visit(
        self, url: str, width: int = DESKTOP, run: Sequence[str] = (), picture: Path | None = None, height: int = 900
    ) -> Visit:
        """Open a page in a window of that width, wait until it asks for nothing more, and run some JavaScript in it.

        Args:
            picture: the file that gets a picture of the window, as PNG.
            height: of the window.
        """
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable", session)
        self.call("Page.setLifecycleEventsEnabled", session, enabled=True)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width == PHONE,
        )
        self.events.clear()
        loader = self.call("Page.navigate", session, url=url)["loaderId"]
        deadline = time.monotonic() + 20
        while not any(is_idle(event, loader) for event in self.events):
            self.events.append(self.receive(deadline))
        for expression in run:
            self.evaluate(session, expression)
        seen = Visit(
            width=self.evaluate(session, "document.documentElement.scrollWidth"),
            text=self.evaluate(session, "document.body.innerText"),
        )
        if picture:
            picture.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", session)["data"]))
        self.call("Target.closeTarget", targetId=page)
        for event in self.events:
            note(event, seen)
        return seen

    def evaluate(self, session: str, expression: str) -> Any:
        return self.call("Runtime.evaluate", session, expression=expression)["result"].get("value")

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = self.send(method, session, **parameters)
        deadline = time.monotonic() + 20
        while (answer := self.receive(deadline)).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    def send(self, method: str, session: str | None = None, **parameters: Any) -> int:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        os.write(self.output, json.dumps(message).encode() + b"\0")
        return self.number

    def receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.input], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser says nothing"
            self.buffer += os.read(self.input, 2**16)
        message, _, self.buffer = self.buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def is_idle(event: dict[str, Any], loader: str) -> bool:
    values = event.get("params", {})
    return (values.get("name"), values.get("loaderId")) == ("networkIdle", loader)


def note(event: dict[str, Any], seen: Visit) -> None:
    """Write down what an event says that a test wants to know."""
    values = event.get("params", {})
    match event.get("method"):
        case "Network.requestWillBeSent":
            seen.requests.append(values["request"]["url"])
        case "Log.entryAdded" if values["entry"]["level"] in ("error", "warning"):
            seen.complaints.append(values["entry"]["text"])
        case "Runtime.consoleAPICalled" if values["type"] in ("error", "warning", "assert"):
            seen.complaints.append(str([argument.get("value") for argument in values["args"]]))
        case "Runtime.exceptionThrown":
            seen.complaints.append(values["exceptionDetails"]["text"])
        case "Audits.issueAdded":
            seen.complaints.append(json.dumps(values["issue"]))
