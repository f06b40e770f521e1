"""/docs: Swagger UI, from files of this package, so that no other host is asked."""

from __future__ import annotations

import gzip
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_HOME = Path(__file__).parent / "vendor" / "swagger-ui"
_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# The style sheet of Swagger UI has pictures in data URLs, and its script sets styles of elements.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>gomin-gateway</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><div id="swagger-ui"></div></body>
</html>
"""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'


def add(app: FastAPI) -> None:
    """Add the routes of the page and of its files."""
    caching = {"cache-control": "max-age=86400"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(_START, headers=caching, media_type="text/javascript")

    def add_file(name: str) -> None:
        packed = (_HOME / f"{name}.gz").read_bytes()

        @app.get(f"/docs/{name}", include_in_schema=False)
        def file(request: Request) -> Response:
            if "gzip" in request.headers.get("accept-encoding", ""):
                encoded = {"content-encoding": "gzip", "vary": "accept-encoding", **caching}
                return Response(packed, headers=encoded, media_type=_TYPES[name])
            return Response(gzip.decompress(packed), headers=caching, media_type=_TYPES[name])

    for name in _TYPES:
        add_file(name)
