"""What is answered while no server is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from simple_asr.server.listener import listen
from simple_asr.server.middleware import STANDING_HEADERS
from simple_asr.server.stand_in import answering_for
from simple_asr.settings import Settings

SECONDS = 2.0


@contextmanager
def standing_in(settings: Settings) -> Iterator[httpx.Client]:
    """A caller of one that answers for a server of these settings."""
    with listen("127.0.0.1", 0) as listener:
        answer = answering_for(settings)
        thread = threading.Thread(target=answer, args=(listener, SECONDS), daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client
        thread.join(timeout=10 * SECONDS)
        assert not thread.is_alive(), "it leaves when its time is over"


def test_it_lives_and_is_not_ready_and_tells_everybody_when_to_come_again(
    settings: Settings,
) -> None:
    with standing_in(settings) as client:
        alive = client.get("/health/live")
        ready = client.get("/health/ready")
        refused = client.post("/transcribe", content=b"RIFF" * 100_000)
        openai = client.post("/v1/audio/transcriptions", content=b"RIFF")

    assert alive.status_code == 200
    assert (ready.status_code, ready.json()) == (503, {"status": "restarting"})
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_lost")
    assert int(refused.headers["Retry-After"]) > 0
    assert (openai.status_code, openai.json()["error"]["code"]) == (503, "engine_lost")


@pytest.mark.parametrize("seen", ["/speech", ""], ids=["left on", "taken off"])
def test_it_answers_under_the_path_that_a_proxy_shows_the_server_under(
    make_settings: Callable[..., Settings], seen: str
) -> None:
    with standing_in(make_settings(root_path="/speech")) as client:
        alive = client.get(f"{seen}/health/live")
        openai = client.get(f"{seen}/v1/models")

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert openai.json()["error"]["code"] == "engine_lost"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/transcribe", "/v1/models"])
def test_it_answers_with_the_headers_that_every_answer_of_the_server_has(
    settings: Settings, path: str
) -> None:
    with standing_in(settings) as client:
        answer = client.get(path, headers={"X-Request-Id": "mine"})

    assert answer.headers["X-Request-Id"] == "mine"
    assert (
        STANDING_HEADERS.items()
        <= {name: answer.headers.get(name) for name in STANDING_HEADERS}.items()
    )
