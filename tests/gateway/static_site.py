"""A plain web server for the page as a folder, which can send other headers and break files off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PREFIX = "/some/where/"

Change = Callable[[str, bytes], bytes]


def unchanged(name: str, content: bytes) -> bytes:
    return content


@dataclass
class Site:
    """A plain web server, in this process.

    Attributes:
        folder: what it serves, at a sub-path.
        headers: that it sends besides.
        change: path → content → another content; it may wait.
        asked: the paths that were asked for.
    """

    folder: Path
    port: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    change: Change = unchanged
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PREFIX.rstrip('/')}"

    def reset(self) -> None:
        self.headers, self.change, self.asked = {}, unchanged, []


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments, directory=str(site.folder))

    def do_GET(self) -> None:
        name = self.path.removeprefix(PREFIX) or "index.html"
        self.site.asked.append(name)
        path = self.site.folder / name
        if not self.path.startswith(PREFIX) or not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        changed = self.site.change(name, content)
        self.send_response(200)
        for header, value in {**self.site.headers, "Content-Type": self.guess_type(path)}.items():
            self.send_header(header, value)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(content)))  # a shorter one is broken off
        self.end_headers()
        with suppress(OSError):  # the browser went away
            self.wfile.write(changed)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site))
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()
