"""Slow clients are given up, and nobody else waits for them."""

from __future__ import annotations

import io
import sys
import wave
from pathlib import Path

import pytest

from tests.running_server import running_server
from tests.server import slow_clients
from tests.support import hiss


# More, and with real weights: python -m tests.server.slow_clients 200
@pytest.mark.skipif(sys.platform != "linux", reason="the server is watched through /proc")
def test_slow_heads_and_bodies_end_in_time_while_others_are_answered(
    tmp_path: Path, base_model: Path
) -> None:
    with running_server(tmp_path, base_model, **slow_clients.SETTINGS) as server:
        seen = slow_clients.besiege(server, num_each=50, clip=wav(hiss(1)))

    assert seen.held >= slow_clients.TIMEOUT
    assert seen.health


def wav(samples: bytes) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as stream:
        stream.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        stream.writeframes(samples)
    return content.getvalue()
