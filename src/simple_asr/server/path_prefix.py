"""Takes the prefix off paths under which a proxy shows the server, if the proxy has not."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefix:
    """Inside it, paths are as they are without a prefix: for routes, errors and the log."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        """`prefix` begins with a slash and ends without one, or is empty."""
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._prefix:
            if scope["path"] == self._prefix:
                # The page names its files relative to the folder that it stands in.
                await RedirectResponse(f"{self._prefix}/", 308)(scope, receive, send)
                return
            scope["path"] = without_prefix(scope["path"], self._prefix)
        await self._app(scope, receive, send)


def without_prefix(path: str, prefix: str) -> str:
    """The path below the prefix; another path as it is."""
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
