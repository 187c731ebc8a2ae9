"""What the tests of pages rely on: nothing that goes wrong in the browser passes unnoticed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from tests.browser import Visit, check_accessibility

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' http:; frame-src 'self'"
HEAD = "<!doctype html><html lang=en><title>Page</title><main><h1>Page</h1>"
PAGES = {
    "/insightly/good": "<p>Good</p>",
    "/insightly/script": "<script src=/throws.js></script>",
    "/insightly/console": "<script src=/console.js></script>",
    "/insightly/inline": "<script>alert(1)</script>",
    "/insightly/missing": "<img src=/nowhere.png alt=''>",
    "/insightly/elsewhere": "<img src=http://example.com/pixel.png alt=''>",
    "/insightly/barrier": "<img src=/empty.svg><button></button>",
    "/shell": "<iframe title=Inner src=/insightly/barrier sandbox='allow-scripts allow-same-origin'>",
}
FILES = {
    "/throws.js": ("text/javascript", "throw new Error('broken')"),
    "/console.js": ("text/javascript", "console.error('told')"),
    "/empty.svg": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "/favicon.ico": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, content = FILES.get(self.path, ("text/html", HEAD + PAGES.get(self.path, "")))
        self.send_response(200 if self.path in FILES | PAGES else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def bare_visit(browser: Browser, site: str) -> Iterator[Visit]:
    """A visit whose problems the test itself looks at."""
    visit = Visit(browser, site)
    yield visit
    visit.close()


def test_a_good_page(bare_visit: Visit) -> None:
    """Nothing is told of a page without faults, and axe-core runs although the page's policy forbids eval."""
    check_accessibility(bare_visit.open("/insightly/good"))
    bare_visit.check()


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("script", "script: broken"),
        ("console", "console: told"),
        ("inline", "Content Security Policy"),
        ("missing", "answer: 404: GET http://127.0.0.1"),
        ("elsewhere", "another host: GET http://example.com/pixel.png"),
    ],
)
def test_a_fault(bare_visit: Visit, page: str, told: str) -> None:
    """A script that fails, an error in the console, a broken policy, an error status, a foreign host."""
    bare_visit.open(f"/insightly/{page}")
    assert any(told in line for line in bare_visit.problems), bare_visit.problems
    with pytest.raises(AssertionError):
        bare_visit.check()


def test_what_is_expected(bare_visit: Visit) -> None:
    """What a test expects is no fault; that it doesn't come is one."""
    bare_visit.expect(r"/nowhere\.png")
    bare_visit.open("/insightly/missing")
    bare_visit.check()
    bare_visit.expect("something else")
    with pytest.raises(AssertionError, match="not seen"):
        bare_visit.check()


@pytest.mark.parametrize("path", ["/insightly/barrier", "/shell"])
def test_a_barrier(bare_visit: Visit, path: str) -> None:
    """An image without a text, and a button without a name, in the page itself or in its iframe."""
    with pytest.raises(AssertionError) as raised:
        check_accessibility(bare_visit.open(path))
    assert "image-alt (critical): img" in str(raised.value)
    assert "button-name (critical): button" in str(raised.value)
