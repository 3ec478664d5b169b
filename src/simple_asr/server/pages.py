"""The pages for browsers, and the headers that keep them harmless. Their files are in `web/`.

A page runs no script and takes no style but its own files', talks to no other server, and lets no
text become markup; the browser holds it to that.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).with_name("web")

PAGE_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            # The recording that was chosen or made, which the page plays.
            "media-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # No string is ever parsed as HTML: the browser refuses `innerHTML` and its kin.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    # `/` answers programs with JSON.
    "Vary": "Accept",
}


def page(name: str) -> Response:
    """The page of this name in `web/`."""
    return FileResponse(WEB / f"{name}.html", headers=PAGE_HEADERS)


def wants_page(request: Request) -> bool:
    """Whether a browser asks: `*/*` alone, as curl and libraries send it, does not."""
    return "text/html" in request.headers.get("accept", "").lower()


class WebFiles(StaticFiles):
    """Scripts, styles and pictures of the pages. Browsers keep them, and ask whether they hold."""

    def __init__(self) -> None:
        super().__init__(directory=WEB)

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
