"""GET /models, POST /models/{name}/load and /unload: which models are there."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from simple_asr.errors import AdministratorsOnly
from simple_asr.server.dependencies import NEEDS_KEY, TheServices, known_caller
from simple_asr.server.openapi import LOAD_RESPONSES, MODELS_RESPONSES, UNLOAD_RESPONSES
from simple_asr.service.keys import Caller
from simple_asr.service.models import ListedModel

router = APIRouter(default_response_class=JSONResponse)


async def administrator(
    services: TheServices, caller: Annotated[Caller, Depends(known_caller)]
) -> None:
    """A caller whose key is named in ADMIN_KEYS, or any where it is empty.

    Raises AdministratorsOnly.
    """
    names = services.settings.administrators
    if names and caller.name not in names:
        raise AdministratorsOnly(
            f"The key {caller.name} may not do this. Use one that is named in ADMIN_KEYS."
        )


NEEDS_ADMINISTRATOR = Depends(administrator)


@router.get(
    "/models",
    summary="The models there are",
    dependencies=[NEEDS_KEY],
    responses=MODELS_RESPONSES,
)
async def models(services: TheServices) -> JSONResponse:
    """The default model first; then those known by name and those in the models folder."""
    listed = await asyncio.to_thread(services.transcriber.models)
    return JSONResponse({"models": [_fields(model) for model in listed]})


@router.post(
    "/models/{name:path}/load",
    summary="Load a model, fetching it where needed",
    dependencies=[NEEDS_ADMINISTRATOR],
    responses=LOAD_RESPONSES,
)
async def load(name: str, services: TheServices) -> JSONResponse:
    """At once: 202 while the model is on its way, and `GET /models` tells when it is loaded."""
    model = await asyncio.to_thread(services.transcriber.load, name)
    return JSONResponse(_fields(model), 200 if model.state == "loaded" else 202)


@router.post(
    "/models/{name:path}/unload",
    summary="Release a model's memory",
    dependencies=[NEEDS_ADMINISTRATOR],
    responses=UNLOAD_RESPONSES,
)
async def unload(name: str, services: TheServices) -> JSONResponse:
    """409 while it is in use, and for the default model."""
    return JSONResponse(_fields(await asyncio.to_thread(services.transcriber.unload, name)))


def _fields(model: ListedModel) -> dict[str, object]:
    return {
        "name": model.name,
        "state": model.state,
        "bytes": model.num_bytes,
        "requests": model.num_requests,
        "default": model.is_default,
    }
