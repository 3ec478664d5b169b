"""What is answered while no server is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from simple_asr.server.listener import listen
from simple_asr.server.stand_in import answering_for
from simple_asr.settings import Settings

SECONDS = 2.0


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listener:
        answer = answering_for(settings)
        thread = threading.Thread(target=answer, args=(listener, SECONDS), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(timeout=10 * SECONDS)
        assert not thread.is_alive(), "it leaves when its time is over"


def test_it_lives_and_is_not_ready_and_tells_everybody_when_to_come_again(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        alive = client.get("/health/live")
        ready = client.get("/health/ready")
        refused = client.post("/transcribe", content=b"RIFF" * 100_000)
        openai = client.post("/v1/audio/transcriptions", content=b"RIFF")

    assert alive.status_code == 200
    assert (ready.status_code, ready.json()) == (503, {"status": "restarting"})
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_lost")
    assert int(refused.headers["Retry-After"]) > 0
    assert (openai.status_code, openai.json()["error"]["code"]) == (503, "engine_lost")
