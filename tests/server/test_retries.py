"""Who is expected back: a client that left when it had said it would."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from starlette.requests import Request

from simple_asr.server.retries import SECONDS_KEPT, seconds_kept_for, sha256_of


def asking(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": pairs})


@pytest.mark.parametrize(
    ("headers", "left_after", "expected"),
    [
        ({"x_stainless_read_timeout": "600"}, 600.0, SECONDS_KEPT),
        ({"x_stainless_timeout": "600"}, 599.0, SECONDS_KEPT),
        ({"x_stainless_read_timeout": "600"}, 5.0, 0.0),
        ({"x_stainless_read_timeout": "NOT_GIVEN"}, 600.0, 0.0),
        ({"x_stainless_read_timeout": "nan"}, 600.0, 0.0),
        ({}, 600.0, 0.0),
    ],
)
def test_only_a_client_that_gave_up_waiting_is_expected_back(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], left_after: float, expected: float
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    seconds_kept = seconds_kept_for(asking(**headers))
    now += left_after

    assert seconds_kept() == expected


@pytest.mark.anyio
async def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "media").write_bytes(content)

    assert await sha256_of(tmp_path / "media") == hashlib.sha256(content).digest()
