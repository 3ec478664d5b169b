"""POST /keys/reload: take the key file up now."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from simple_asr.errors import InvalidKeyFile
from simple_asr.server.dependencies import NEEDS_KEY, TheServices
from simple_asr.server.key_reload import reload_keys
from simple_asr.server.openapi import RELOAD_RESPONSES

router = APIRouter(default_response_class=JSONResponse)


@router.post(
    "/keys/reload",
    summary="Read the key file again",
    dependencies=[NEEDS_KEY],
    responses=RELOAD_RESPONSES,
)
async def reload(services: TheServices) -> JSONResponse:
    """The number of keys now in force. A file that cannot be taken is a 409, so that a script sees
    it (`curl --fail`); the keys read before stay in force then.
    """
    result = await reload_keys(services.keys)
    if result.problem:
        raise InvalidKeyFile(result.problem)
    change = "changed" if result.changed else "are the same as before"
    return JSONResponse(
        {
            "status": "ok",
            "count": result.count,
            "message": f"{result.count} API keys in force; they {change}.",
        }
    )
