"""Callers who leave, while their recordings wait for a decoder and while they are recognised.

python -m tests.promises.disconnects 50
"""

from __future__ import annotations

import socket
import struct
import tempfile
import time
from pathlib import Path

from tests.promises.callers import PCM, PITCHES, metric, tone
from tests.promises.figures import Figures, arguments
from tests.promises.hearing_server import hearing_server
from tests.running_server import KEY, RunningServer
from tests.support import WAIT

SECONDS_PER_WINDOW = 0.1
MINUTES = 2.0
# Windows in a model call on a CPU: the call that goes on when a caller leaves is the last.
MAX_BATCH = 8
MOST_SECONDS = 2.0


def main(num_callers: int, figures: Figures) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        hearing_server(
            Path(name),
            SECONDS_PER_WINDOW,
            max_batch_size=MAX_BATCH,
            max_waiting_requests=num_callers + 1,
        ) as server,
    ):
        media = tone(PITCHES[0], MINUTES * 60)
        descriptors = server.descriptors
        figures.note("They leave while most wait for a decoder:")
        leave(server, media, num_callers, 0, figures)
        figures.note("They leave while the model works:")
        leave(server, media, num_callers, num_callers // 2, figures)
        server.until_closed(descriptors)
    figures.end()


def leave(
    server: RunningServer, media: bytes, num_callers: int, num_windows: int, figures: Figures
) -> None:
    """Callers send a recording each, and are gone once so many windows have been recognised."""
    begun = windows(server) + num_windows
    callers = [call(server, media) for _ in range(num_callers)]
    server.until(lambda: in_progress(server) >= num_callers, "all have been taken in")
    server.until(lambda: windows(server) >= begun, "the model works")
    before = windows(server)
    for number, caller in enumerate(callers):
        hang_up(caller, with_reset=number % 2 == 0)
    left = time.monotonic()
    server.until(lambda: in_progress(server) == 0, "every place is free")
    seconds = time.monotonic() - left
    status = send_short_clip(server)
    answered = time.monotonic() - left
    figures.equal("the next caller is told", status, 200)
    figures.within("all places free after", seconds, MOST_SECONDS)
    figures.within("the next caller served after", answered, MOST_SECONDS + 1)
    # The call that went on, and one that may have begun while they were hanging up.
    wasted = windows(server) - before - 1
    figures.at_most("windows recognised for those who left", wasted, 2 * MAX_BATCH)
    server.until(lambda: server.spooled == [], "the spool folder is empty")


def send_short_clip(server: RunningServer) -> int:
    with server.client() as client:
        return client.post(
            "/transcribe?language=en", content=tone(PITCHES[1]), headers=PCM
        ).status_code


def call(server: RunningServer, media: bytes) -> socket.socket:
    """A caller whose request is sent, whole."""
    head = (
        f"POST /transcribe?language=en HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: audio/pcm;rate=16000\r\nContent-Length: {len(media)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)
    connection.sendall(head.encode() + media)
    return connection


def hang_up(caller: socket.socket, *, with_reset: bool) -> None:
    if with_reset:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


def windows(server: RunningServer) -> float:
    return metric(server, "asr_windows_total", 'step="Decode"')


def in_progress(server: RunningServer) -> float:
    """Requests begun and not ended, but for the one that asks."""
    return metric(server, "asr_requests_in_progress") - 1


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
