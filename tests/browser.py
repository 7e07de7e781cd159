"""A headless Chromium, driven over its DevTools pipe: messages of JSON that end with a zero byte.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # containers have none to offer; the only page it sees is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)
_SECONDS = 20.0
# The browser reads from descriptor 3 and writes to 4.
_WIRE = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One tab. Errors that the page writes to the console are collected in `complaints`."""

    def __init__(self, to_browser: int, from_browser: int):
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._write, self._read = to_browser, from_browser
        self._buffer, self._number, self._session = b"", 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        pages = [target["targetId"] for target in targets if target["type"] == "page"]
        target = (
            pages[0] if pages else self.call("Target.createTarget", url="about:blank")["targetId"]
        )
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A method's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._notice(answer)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Load a page, up to the end of its scripts."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _SECONDS
        while not self.run(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What is to be read there; nothing of what is hidden."""
        return self.run(f"document.querySelector({selector!r}).innerText")

    def press(self, key: str, *, code: int, modifiers: int = 0, command: str = "") -> None:
        """Press and let go a key, as the keyboard does (2 is Ctrl, 8 is Shift)."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        typed = {"text": key} if len(key) == 1 and not modifiers else {}
        kind = "keyDown" if typed else "rawKeyDown"
        self.call(
            "Input.dispatchKeyEvent",
            type=kind,
            commands=list(filter(None, [command])),
            **named,
            **typed,
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def choose(self, selector: str, file: Path) -> None:
        """Pick a file in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drop(self, file: Path, x: float, y: float) -> None:
        """Drag a file from the desktop and drop it there."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Take the size of a device, and its colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def names(self, role: str) -> list[str]:
        """What assistive technology calls the elements of a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            node.get("name", {}).get("value", "")
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") == role
        ]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 2**20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _notice(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url')}"
            )
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Starts a browser with a fresh profile; skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("NO CHROMIUM HERE: the page is not tested; apt-get install chromium")
    options = (*_OPTIONS, f"--user-data-dir={profile}")
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _WIRE, str(their_read), str(their_write), program, *options],
        pass_fds=(their_read, their_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_read)
    os.close(their_write)
    try:
        yield Page(our_write, our_read)
    finally:
        process.terminate()
        process.wait(20)
        os.close(our_write)
        os.close(our_read)
