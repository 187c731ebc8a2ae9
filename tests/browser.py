"""Chromium on the pages of a real Airflow. Errors on a page fail the test, and so do barriers.

A test asks for the fixture ``visit`` (``tests/ui/e2e/conftest.py``). Playwright drives the Chromium that is
installed, since it does not bring one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Frame,
    Page,
    Request,
    Response,
    Route,
    WebError,
    sync_playwright,
)

__all__ = ["Visit", "check_accessibility", "check_layout", "chromium"]

NO_CHROMIUM = "no Chromium is installed: tools/browser.sh does so on Debian, as root"
"""Why browser tests are skipped where ``chromium`` finds none."""

ROOT = Path(__file__).parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome")  # as in tools/browser.sh
ARGUMENTS = (
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever it wants to look up by itself
)
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
WIDTHS = (1400, 400)
HEIGHT = 900
OURS = re.compile(r"(/[^/]+)?/insightly/")
"""What the paths of our pages begin with, below whatever path Airflow has."""
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def find_chromium() -> str | None:
    """Return the path of the browser that is installed, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a running Chromium with a new, temporary profile. Skip the tests if there is no Chromium."""
    if (path := find_chromium()) is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One person's visit to an Airflow, in a separate context without cookies or pages of others.

    :param base_url: Airflow's address with its path; the browser can reach no other host.
    :param token: logs the person in; ``None`` means not logged in.
    :param scheme: ``light`` or ``dark``, as the person's system is set.
    :param locale: the person's language; ``time_zone``: the person's time zone.
    :ivar page: the only page at first.
    """

    def __init__(
        self,
        browser: Browser,
        base_url: str,
        token: str | None = None,
        *,
        width: int = WIDTHS[0],
        height: int = HEIGHT,
        scheme: Scheme = "light",
        locale: str = "en-GB",
        time_zone: str = "Europe/Berlin",
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(base_url))
        self._problems: list[str] = []
        self._expected: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            locale=locale,
            timezone_id=time_zone,
        )
        if token is not None:
            self.context.add_cookies([{"name": "_token", "value": token, "url": self.base_url}])
        self._watch(self.context)
        self.page = self.context.new_page()

    def open(self, path: str) -> Page:
        """Load an address below Airflow's own, and wait until the page makes no more requests."""
        self.page.goto(self.base_url + path, wait_until="networkidle")
        return self.page

    def expect(self, pattern: str) -> None:
        """Expect a problem whose line matches this regular expression."""
        self._expected.append(pattern)

    @property
    def problems(self) -> list[str]:
        """The unexpected problems so far, one line each."""
        return [line for line in self._problems if not any(re.search(p, line) for p in self._expected)]

    def check(self) -> None:
        """Fail if there was an unexpected problem, or if an expected one is missing."""
        assert not self.problems, "\n".join(self.problems)
        missing = [p for p in self._expected if not any(re.search(p, line) for line in self._problems)]
        assert not missing, f"expected, and not seen: {missing}"

    def close(self) -> None:
        """End the visit."""
        self.context.close()

    def _watch(self, context: BrowserContext) -> None:
        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":  # a violation of a page's content security policy, too
                self._problems.append(f"console: {message.text} at {message.location.get('url', '')}")

        def on_error(error: WebError) -> None:
            self._problems.append(f"script: {error.error}")

        def on_failure(request: Request) -> None:
            # What is still under way when a page is left, or is a download, is not a failure.
            if request.failure != "net::ERR_ABORTED":
                self._problems.append(f"request: {request.failure}: {request.method} {request.url}")

        def on_response(response: Response) -> None:
            if response.status >= 400:
                request = response.request
                self._problems.append(f"answer: {response.status}: {request.method} {request.url}")

        def on_route(route: Route) -> None:
            url = route.request.url
            if url.startswith((f"{self._origin}/", "data:", "blob:", "about:")):
                route.continue_()
            else:
                self._problems.append(f"another host: {route.request.method} {url}")
                route.abort("blockedbyclient")

        def on_dialog(dialog: Dialog) -> None:
            self._problems.append(f"dialog: {dialog.type}: {dialog.message}")
            dialog.dismiss()

        context.on("dialog", on_dialog)
        context.on("console", on_console)
        context.on("weberror", on_error)
        context.on("requestfailed", on_failure)
        context.on("response", on_response)
        context.route("**/*", on_route)


# --- barriers ----------------------------------------------------------------------------------------------


def check_accessibility(page: Page) -> None:
    """Check this package's part of a page with axe-core. A violation fails with rule, element and help.

    This part is the page itself, or the page that Airflow shows in an iframe.
    """
    frames = [frame for frame in page.frames if OURS.match(urlsplit(frame.url).path)]
    assert frames, f"nothing of ours is shown: {[frame.url for frame in page.frames]}"
    found = [line for frame in frames for line in violations(frame)]
    assert not found, "\n".join(found)


def check_layout(page: Page, name: str) -> None:
    """Fail if a page has barriers, or is wider than its window: wide and narrow, light and dark.

    :param name: the name of its screenshots.
    """
    for picture in screenshots(page, name):
        check_accessibility(page)
        width = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, f"{picture.name} scrolls sideways"


def violations(frame: Frame) -> list[str]:
    """Return what axe-core finds in a frame, a line for each element."""
    if not frame.evaluate("() => 'axe' in window"):
        frame.evaluate(f"() => {{ {_axe()} }}")
    result: dict[str, Any] = frame.evaluate(
        "rules => axe.run(document, {iframes: false, runOnly: {type: 'tag', values: rules}})", list(RULES)
    )
    return [
        f"{violation['id']} ({violation['impact']}): {' '.join(map(str, node['target']))}: "
        f"{node['html'][:200]}: {violation['help']} ({node['failureSummary']!r}, {violation['helpUrl']})"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def _axe() -> str:
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


# --- pictures ----------------------------------------------------------------------------------------------


def screenshot(page: Page, name: str) -> Path:
    """Save a picture of a whole page in ``$UI_SCREENSHOTS`` (default ``.screenshots``). Return its path."""
    folder = Path(os.environ.get("UI_SCREENSHOTS") or ROOT / ".screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled")
    return path


def screenshots(page: Page, name: str) -> Iterator[Path]:
    """Save pictures of a page, wide and narrow, light and dark. Yield after each, while the page looks so."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            yield screenshot(page, f"{name}-{width}-{scheme}")
