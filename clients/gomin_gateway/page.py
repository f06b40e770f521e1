"""The files of the page at /, and the answer for addresses that there are not."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

WEB = Path(__file__).parent / "web"


class Page:
    """ASGI application for whatever is no route of the gateway."""

    def __init__(self, folder: Path = WEB) -> None:
        """Args: folder: the files; its index.html is the page."""
        self._files = StaticFiles(directory=folder, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            HTTPException: there is no such file.
        """
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)
        await self._files(scope, receive, send)
