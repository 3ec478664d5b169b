"""The program of a decoder process: media in by descriptor, 16 kHz mono samples out by descriptor.

`decode.py` starts it as `python -m simple_asr.audio.decoder_process LIMITS`, LIMITS being JSON,
with a Unix socket as standard input (`decoder_protocol.py`). What it does with media is `media.py`.
"""

from __future__ import annotations

# socket.recv_fds imports it at its first call, which a confined process cannot.
import array  # noqa: F401
import ctypes
import io
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from simple_asr.audio import media, sandbox
from simple_asr.audio.decoder_protocol import (
    BYTES_PER_SAMPLE,
    MAX_LINE_BYTES,
    Answer,
    DecodeLimits,
    DecodeRequest,
    Done,
    Failed,
    Progress,
    Ready,
    to_line,
)
from simple_asr.errors import AsrError, MediaLimitExceeded


def main() -> None:
    """Answers requests until the server closes the socket."""
    limits = DecodeLimits.from_json(sys.argv[1])
    connection = socket.socket(fileno=sys.stdin.fileno())

    def report(num_samples: int) -> None:
        send(connection, Progress(num_samples))

    media.prepare()
    send(connection, Ready(harden(limits)))
    while (received := receive_request(connection)) is not None:
        request, source, spool_file = received
        with source, spool_file:
            answer = decode(request, source, spool_file, limits, report)
        send(connection, answer)


def harden(limits: DecodeLimits) -> tuple[str, ...]:
    """Gives up what decoding does not need, for good; names what this system does not offer."""
    # A terminal's Ctrl-C and a service manager's stop reach every process of the server, and
    # requests under way are to be finished. This one ends with its socket, or by SIGKILL.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # Speech recognition goes first where decoding would compete with it.
    os.nice(5)
    largest_output = (limits.max_samples + 1) * BYTES_PER_SAMPLE
    protections = {
        "no core dumps": _limit(resource.RLIMIT_CORE, 0),
        "few open files": _limit(resource.RLIMIT_NOFILE, 32),
        "bounded output": _limit(resource.RLIMIT_FSIZE, largest_output),
        "bounded memory": _limit(resource.RLIMIT_AS, limits.memory_bytes),
        "no new privileges": sandbox.set_no_new_privileges(),
        "ends with the server": _end_with_parent(),
        # Last: nothing above could be done after it.
        **sandbox.confine(),
    }
    return tuple(name for name, holds in protections.items() if not holds)


def _limit(resource_kind: int, value: int) -> bool:
    """Lowers a resource limit; True when it holds."""
    try:
        resource.setrlimit(resource_kind, (value, value))
    except (OSError, ValueError):
        return False
    return True


def _end_with_parent() -> bool:
    """By prctl(2), PR_SET_PDEATHSIG; True when it holds."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0) == 0)


def receive_request(
    connection: socket.socket,
) -> tuple[DecodeRequest, io.FileIO, io.FileIO] | None:
    """The next request, its media and spool file; None once the server has closed its end."""
    line, descriptors, _, _ = socket.recv_fds(connection, MAX_LINE_BYTES, 2)
    if not line:
        return None
    while not line.endswith(b"\n"):
        line += connection.recv(MAX_LINE_BYTES)
    source, spool_file = descriptors
    return DecodeRequest.from_line(line), io.FileIO(source, "rb"), io.FileIO(spool_file, "wb")


def decode(
    request: DecodeRequest,
    source: io.FileIO,
    spool_file: io.FileIO,
    limits: DecodeLimits,
    report: Callable[[int], None],
) -> Done | Failed:
    """One request. What nobody foresaw ends the process, and the server knows what to say then."""
    writer = media.SampleWriter(spool_file, limits, report)
    try:
        warnings = media.decode(source, writer, limits, request)
        return Done(warnings, writer.num_channels)
    except AsrError as error:
        return Failed(error.code, error.detail)
    except MemoryError:
        return Failed(
            MediaLimitExceeded.code,
            f"Decoding the file takes more than {limits.memory_bytes // 1024**2} MiB of memory, "
            "the most this server gives it. Convert it to WAV or FLAC, and send that.",
        )


def send(connection: socket.socket, answer: Answer) -> None:
    """One answer to the server. Without a server, this process has no purpose."""
    try:
        connection.sendall(to_line(answer))
    except OSError:
        raise SystemExit from None


if __name__ == "__main__":
    main()
