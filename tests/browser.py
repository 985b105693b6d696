"""A real browser for pages in files: Chromium by its driver's HTTP interface (W3C WebDriver)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync disable-dev-shm-usage"
)

needed = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium with chromedriver here")


class Browser:
    """A session of the driver."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.path = ""

    def call(self, method: str, path: str, content: object = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + self.path + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def begin(self, profile: Path) -> None:
        """Start Chromium with a profile of its own."""
        flags = [f"--{name}" for name in FLAGS.split()]
        options = {"binary": CHROMIUM, "args": [*flags, f"--user-data-dir={profile}"]}
        wanted = {"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options}
        found = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{found['sessionId']}"

    def command(self, name: str, **parameters: object) -> Any:
        """A command of the protocol of Chromium's developer tools."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def show(self, page: Path | str, width: int, dark: bool = False) -> None:
        """Open a file or an address in a window of that width."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.call("POST", "/url", {"url": page if isinstance(page, str) else page.as_uri()})

    def value(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.call("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def console(self) -> list[Any]:
        """What was written to the console since the last look."""
        return self.call("POST", "/se/log", {"type": "browser"})


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A headless Chromium, its profile in the folder."""
    assert DRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "driver.log").open("wb")
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=log, stderr=log)
    found = Browser(port)
    try:
        for _ in range(150):
            try:
                found.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.2)
        found.begin(folder / "profile")
        yield found
    finally:
        if found.path:  # ends Chromium
            found.call("DELETE", "")
        driver.terminate()
        driver.wait()
        log.close()
