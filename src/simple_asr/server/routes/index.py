"""GET /: the page, for browsers; for programs, what this server is and where to go on."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from simple_asr import __version__
from simple_asr.server.dependencies import TheServices
from simple_asr.server.pages import page, wants_page

router = APIRouter(default_response_class=JSONResponse)


@router.head("/", include_in_schema=False)
@router.get("/", summary="Name, version, limits, and links; the page, for browsers")
async def index(request: Request, services: TheServices) -> Response:
    """Needs no key, and tells nothing that is worth one."""
    if wants_page(request):
        return page("index")
    return JSONResponse(
        {
            "name": "Simple ASR",
            "version": __version__,
            "limits": {
                "max_upload_bytes": services.limits.max_bytes,
                "max_audio_seconds": services.settings.max_audio_seconds,
            },
            "links": {
                name: services.address(path)
                for name, path in {
                    "transcribe": "/transcribe",
                    "health": "/health",
                    "docs": "/docs",
                    "openapi": "/openapi.json",
                }.items()
            },
        },
        headers={"Vary": "Accept"},
    )


@router.head("/docs", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """openapi.json, as a page for people."""
    return page("docs")
