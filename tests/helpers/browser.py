"""A page in headless Chromium: what it draws, asks the network for, and says on its console."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--hide-scrollbars")
QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


def executable() -> str:
    """Where the browser is; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no chromium: apt-get install chromium")


class Tab:
    """One tab, by the browser's own protocol over a socket."""

    def __init__(self, address: str) -> None:
        host, _, path = address.removeprefix("ws://").partition("/")
        name, port = host.split(":")
        self._socket = socket.create_connection((name, int(port)), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._socket.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(1)
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        assert accept in answer
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it are kept."""
        self._number += 1
        self._send(json.dumps({"id": self._number, "method": method, "params": parameters}).encode())
        while True:
            message = json.loads(self._receive())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, expression: str) -> Any:
        """What a piece of JavaScript gives."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _send(self, data: bytes) -> None:
        size = len(data)
        head = bytes([0x81]) + (
            bytes([0x80 | size])
            if size < 126
            else b"\xfe" + struct.pack(">H", size)
            if size < 65536
            else b"\xff" + struct.pack(">Q", size)
        )
        self._socket.sendall(head + b"\0\0\0\0" + data)

    def _receive(self) -> bytes:
        whole = b""
        while True:
            first, second = self._exactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._exactly(8))
            whole += self._exactly(size)
            if first & 0x80:
                return whole

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            assert part, "the browser has gone"
            data += part
        return data

    def close(self) -> None:
        self._socket.close()

    def requests(self) -> list[str]:
        """Whatever was asked for, but what is in the page itself."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Messages of level error, and what was thrown."""
        found = []
        for event in self.events:
            told = event.get("params", {})
            bad = event["method"] == "Runtime.exceptionThrown"
            bad |= event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert", "warning")
            bad |= event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error"
            found += [json.dumps(told)[:500]] if bad else []
        return found


@contextmanager
def opened(page: Path, folder: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Tab]:
    """The page in a tab, drawn."""
    command = [executable(), *FLAGS, *QUIET, "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen([*command, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    tab: Tab | None = None
    try:
        assert process.stderr is not None
        port = next(m[1] for line in process.stderr if (m := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=60) as answer:
            tabs = json.load(answer)
        tab = Tab(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        tab.call("Emulation.setEmulatedMedia", features=scheme)
        tab.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + 120
        while time.monotonic() < end and not tab.value("document.readyState === 'complete'"):
            time.sleep(0.1)
        done = "!document.getElementById('plotly') || !!document.documentElement.dataset.drawn"
        while time.monotonic() < end and not tab.value(done):
            time.sleep(0.1)
        yield tab
    finally:
        if tab is not None:
            tab.close()
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def screenshot(tab: Tab, path: Path, *, height: int | None = None) -> None:
    """The page as a PNG, from its top down to `height` or to its end."""
    size = tab.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height or 1e9), "scale": 1}
    found = tab.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(found["data"]))
