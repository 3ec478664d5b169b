"""GET /: what this server is, and where to go on."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from simple_asr import __version__

router = APIRouter(default_response_class=JSONResponse)


@router.head("/", include_in_schema=False)
@router.get("/", summary="Name, version, and links")
async def index() -> JSONResponse:
    """Needs no key, and tells nothing that is worth one."""
    return JSONResponse(
        {
            "name": "Simple ASR",
            "version": __version__,
            "links": {
                "transcribe": "/transcribe",
                "health": "/health",
                "openapi": "/openapi.json",
            },
        }
    )
