"""What strangers are answered: the routes of a table, and no other, documented or not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import Mount

pytestmark = pytest.mark.anyio

# To read, and nothing that is worth a key.
OPEN = ("/", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready")
# Files that are the same for everybody.
OPEN_MOUNTS = ["/web"]
# It has a token of its own, and is not there for those without it.
HIDDEN = "/metrics"
ANSWERED = {(method, path): 200 for path in OPEN for method in ("GET", "HEAD")} | {
    ("GET", HIDDEN): 404
}
# No key, a wrong one, or nothing of that name by this method.
REFUSALS = {401, 403, 405}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def routes_of(app: FastAPI) -> list[RouteContext]:
    """Every route and mount, those of included routers and undocumented ones too."""
    return list(iter_route_contexts(app.routes))


def paths_of(app: FastAPI) -> set[str]:
    """Of all routes, with `x` for what they leave open."""
    return {
        "/".join("x" if part.startswith("{") else part for part in (route.path or "").split("/"))
        for route in routes_of(app)
        if not isinstance(route.original_route, Mount)
    }


def test_every_documented_path_is_among_those_that_are_tried(app: FastAPI) -> None:
    assert set(app.openapi()["paths"]) < {route.path_format for route in routes_of(app)}


def test_nothing_is_mounted_but_what_is_open_to_all(app: FastAPI) -> None:
    mounts = [route.path for route in routes_of(app) if isinstance(route.original_route, Mount)]

    assert mounts == OPEN_MOUNTS


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "f" * 64},
        {"Authorization": f"Bearer {'f' * 64}"},
        {"Authorization": "Basic YWxpY2U6"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
    ids=lambda headers: ",".join(headers) or "nothing",
)
async def test_without_a_key_the_open_routes_answer_and_no_other(
    app: FastAPI, stranger: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    told = {
        (method, path): (await stranger.request(method, path, headers=headers)).status_code
        for path in paths_of(app)
        for method in METHODS
    }

    assert {asked: status for asked, status in told.items() if status not in REFUSALS} == ANSWERED


def test_no_route_becomes_a_websocket(
    app: FastAPI, live: Callable[[FastAPI], AbstractContextManager[int]]
) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with live(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        told = {path: client.get(path, headers=upgrade).status_code for path in paths_of(app)}

    assert {path: status for path, status in told.items() if status not in REFUSALS} == {
        path: status for (method, path), status in ANSWERED.items() if method == "GET"
    }
