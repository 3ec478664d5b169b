"""GET /health, /health/live, /health/ready: whether the server lives, and whether it can work.

None needs a key, waits for anything, or touches the model. Why a model is not served, the log
tells: reasons name folders and hosts.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from simple_asr.server.dependencies import TheServices
from simple_asr.server.openapi import HEALTH_RESPONSES, LIVE_RESPONSES, READY_RESPONSES
from simple_asr.server.problems import DEFAULT_RETRY_AFTER
from simple_asr.service.spool import has_room
from simple_asr.service.transcriber import ModelState

router = APIRouter(default_response_class=JSONResponse)


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Which model is served, and how well", responses=HEALTH_RESPONSES)
async def health(services: TheServices) -> JSONResponse:
    """200 when requests are answered, 503 while the model loads and after it failed to."""
    state = services.transcriber.model_state
    if state.status != "ready":
        return _unready(
            {
                "status": state.status,
                "model_loaded": False,
                "model_name": state.served,
            }
        )
    return JSONResponse(_served(state))


def _served(state: ModelState) -> dict[str, object]:
    if not state.is_degraded:
        return {"status": "healthy", "model_loaded": True, "model_name": state.served}
    return {
        "status": "degraded",
        "model_loaded": True,
        "model_name": state.served,
        "requested_model": state.requested,
    }


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="The server lives", responses=LIVE_RESPONSES)
async def live() -> JSONResponse:
    """Always 200: an answer at all is the answer. Restart the server when none comes."""
    return JSONResponse({"status": "alive"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", summary="The server can transcribe", responses=READY_RESPONSES)
async def ready(services: TheServices) -> JSONResponse:
    """200 once one real inference has succeeded, while there is room for uploads, and until a
    signal asks the server to stop; else 503.

    Send requests elsewhere on 503.
    """
    if services.is_stopping.is_set():
        return _unready({"status": "stopping"})
    state = services.transcriber.model_state
    if state.status != "ready":
        return _unready({"status": state.status})
    settings = services.settings
    folders = (settings.spool_dir, settings.jobs_dir)
    if not all(has_room(folder, settings.min_free_bytes) for folder in folders):
        return _unready({"status": "storage_low"})
    return JSONResponse({"status": "ready"})


def _unready(body: dict[str, object]) -> JSONResponse:
    return JSONResponse(body, 503, headers={"Retry-After": str(DEFAULT_RETRY_AFTER)})
