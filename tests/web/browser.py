"""A real browser for the tests, which notes whatever a good page never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from web.site import Site, chromium, password


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Watched:
    """A browser that notes whatever a good page never does."""

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.context = context
        self.site = site
        self.wrong: list[str] = []
        context.on("request", self._asked)
        context.on("console", lambda m: self._said(m.type, m.text))
        context.on("weberror", lambda e: self.wrong.append(f"error: {e.error}"))
        context.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        self.page = context.new_page()
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog: {d.message}"), d.dismiss()))

    def _asked(self, request: Any) -> None:
        where = urlsplit(request.url)
        if where.netloc != urlsplit(self.site.url).netloc and where.scheme != "data":
            self.wrong.append(f"asked {request.url}")

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "status of 4" not in text:
            self.wrong.append(f"{kind}: {text}")

    def go(self, path: str) -> Page:
        self.page.goto(self.site.url + path)
        return self.page

    def sign_in(self, role: str) -> Page:
        page = self.go("/sign-in")
        page.fill("#role", role)
        page.fill("#password", password(role))
        page.click("main button")
        expect(page.locator("h1")).to_have_text("Now")
        return page


Open = Callable[..., Watched]


@pytest.fixture
def watched(browser: Browser, site: Site) -> Iterator[Open]:
    """Opens browsers; at the end each of them has found nothing wrong."""
    opened: list[Watched] = []

    def open_one(site: Site = site, **options: Any) -> Watched:
        options = {
            "timezone_id": "Europe/Berlin",
            "viewport": {"width": 1280, "height": 900},
        } | options
        opened.append(Watched(browser.new_context(**options), site))
        return opened[-1]

    yield open_one
    for one in opened:
        one.context.close()
        assert one.wrong == []
