"""Browser: a headless Chromium driven over its DevTools protocol, for tests of pages.

What a page writes to its console as an error, exceptions, and every address that it asks for are collected.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect


class Page:
    """One page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []
        self.asked: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; → its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=30))
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        about = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning"):
                self.errors.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.asked.append(about["request"]["url"])

    def open(self, url: str) -> None:
        """Go to an address; its document is there afterwards."""
        assert "errorText" not in (gone := self.command("Page.navigate", url=url)), gone
        self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be so large, and light or dark."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        found = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 20.0) -> Any:
        """Wait until an expression is true; → its value."""
        give_up = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < give_up, f"never true: {expression}; errors: {self.errors}"
            time.sleep(0.05)
        return value

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39}
        about: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.command("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.command("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """The visible part as a PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(program: str) -> Iterator[Page]:
    """A browser with one empty page."""
    with tempfile.TemporaryDirectory(prefix="gogate-browser-", ignore_cleanup_errors=True) as folder:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0",
                   f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    if line.startswith("DevTools listening on "):
                        port = line.rpartition("/devtools")[0].rpartition(":")[2]
                        break
                else:
                    raise AssertionError("the browser did not start")
                with connect(_first_page(port), max_size=1 << 26) as socket:
                    yield Page(socket)
            finally:
                process.terminate()


def _first_page(port: str) -> str:
    """Where the one page can be spoken to."""
    give_up = time.monotonic() + 20
    while True:
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < give_up, "the browser has no page"
        time.sleep(0.05)
