"""A real browser for tests of pages: Debian's Chromium without a window, driven by Playwright.

It is opened for a module, not for the session: while it is, the thread has a running event loop, in which other tests
cannot start their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support import tool

WAIT_MS = 120_000  # for what happens at once on an idle machine
expect.set_options(timeout=WAIT_MS)  # five seconds by default


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a fake microphone, which cannot even look up any other host."""
    path = tool("chromium")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments.append("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=WAIT_MS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Pages:
    """Opens pages; a context manager. At its end, they asked no other host, and nothing went wrong inside.

    Attributes:
        requests: the addresses that were asked for, except for data in the page itself.
    """

    browser: Browser
    requests: list[str] = field(default_factory=list)
    _homes: set[str] = field(default_factory=set)
    _complaints: list[str] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)

    def new(self, **settings: object) -> Page:
        """An empty page, with settings of Playwright's `new_context`."""
        context = self.browser.new_context(**settings)  # type: ignore[arg-type]
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.on("console", self._said)
        return page

    def open(self, address: str, page: Page | None = None, wait_until: str = "load", **settings: object) -> Page:
        """A page at an address, in a context of its own unless there is one already."""
        page = page or self.new(**settings)
        parts = urlsplit(address)
        self._homes.add(f"{parts.scheme}://{parts.netloc}/")
        page.goto(address, wait_until=wait_until)  # type: ignore[arg-type]
        return page

    def _asked(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self._complaints.append(message.text)

    def __enter__(self) -> Pages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for context in self._contexts:
            context.close()
        if kind is None:
            assert not self._complaints
            homes = ("blob:", *self._homes)
            assert [address for address in self.requests if not address.startswith(homes)] == []


def until(page: Page, condition: str) -> None:
    """Wait for a condition in a page whose policy forbids what Playwright's `wait_for_function` does."""
    page.evaluate(
        f"""async () => {{
          const end = Date.now() + {WAIT_MS};
          while (!({condition})) {{
            if (Date.now() > end) throw new Error("it has not happened");
            await new Promise((resolve) => setTimeout(resolve, 20));
          }}
        }}"""
    )
