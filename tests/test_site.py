"""The built site in a real browser; ``tox run -e docs`` builds it and sets SEGLOSS_SITE."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import Browser, browser, needed

SITE = Path(os.environ.get("SEGLOSS_SITE", ""))
PAGES = ("", "docs/losses/", "docs/losses/dice_ce/", "docs/gallery/", "docs/choosing/", "docs/reference/engine/")
pytestmark = [needed, pytest.mark.skipif(not SITE.name, reason="SEGLOSS_SITE does not name a built site")]
SEARCH = """(() => {
    const box = document.querySelector("input.md-search__input");
    box.focus();
    box.value = "focal tversky";
    box.dispatchEvent(new Event("input", {bubbles: true}));
    box.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
    return true;
})()"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_pages_fit_and_load_nothing_from_elsewhere(window: Browser, address: str, width: int, dark: bool) -> None:
    for page in PAGES:
        window.show(address + page, width, dark)
        assert window.value("document.documentElement.scrollWidth <= window.innerWidth"), page
        assert window.value('document.body.getAttribute("data-md-color-scheme")') == ("slate" if dark else "default")
        assert not window.value("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        loaded = 'performance.getEntriesByType("resource").map(r => r.name)'
        assert not window.value(f'{loaded}.filter(n => !n.startsWith(location.origin) && !n.startsWith("data:"))')
        assert not window.console()


def test_formulas_are_shown(window: Browser, address: str) -> None:
    window.show(f"{address}docs/losses/dice/", 1600)
    assert window.value('document.querySelector("math mfrac").getBoundingClientRect().height') > 20


def test_the_search_finds_a_loss(window: Browser, address: str) -> None:
    window.show(address, 1600)
    window.value(SEARCH)
    for _ in range(100):
        found = window.value('[...document.querySelectorAll(".md-search-result__link")].map(a => a.href)')
        if found:
            break
        time.sleep(0.2)
    assert found[0].startswith(f"{address}docs/losses/focal_tversky/")
