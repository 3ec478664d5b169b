"""Media files to recordings, in child processes: what a file does to libav stays there.

A child gets two descriptors, of the media and of a nameless spool file, and nothing else: no path,
no file name, no secret of the server. One that crashes, hangs or talks nonsense costs the file it
was on, and is replaced. Its program is `decoder_process.py`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import IO

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.decoder_protocol import (
    MAX_LINE_BYTES,
    MIX,
    Answer,
    DecodeLimits,
    DecodeRequest,
    Done,
    Failed,
    Progress,
    Ready,
    from_line,
)
from simple_asr.audio.recording import Recording
from simple_asr.errors import (
    DecoderUnavailable,
    EmptyMedia,
    MediaLimitExceeded,
    NoAudioTrack,
    ShuttingDown,
    StorageFull,
    TooManyChannels,
    UnreadableMedia,
)

__all__ = ["HEAD_SECONDS", "DecodeLimits", "DecodeRequest", "DecoderPool"]

logger = logging.getLogger(__name__)

OnProgress = Callable[[float], None]
"""Told the seconds of audio decoded so far. What it raises ends the decoding."""

OnHead = Callable[[Recording], None]
"""Told a recording of the first `HEAD_SECONDS`, which is then its to close."""

HEAD_SECONDS = 600
"""So much of a longer file may be had before the rest of it is decoded."""

START_TIMEOUT = 60
"""Seconds. A child is ready in 0.2 s; on a cold, busy disk it may take far longer."""

MAX_FILES_PER_PROCESS = 500
"""Then a fresh one takes its place: libav's bindings have leaked before (PyAV#1429, PyAV#2282)."""


class DecoderPool:
    """A fixed number of decoders, each with a warm process; callers beyond it wait in line.

    Whoever took a decoder out of `_idle` owns it until it is put back. `_lock` orders starts
    against `close`.
    """

    def __init__(self, size: int, limits: DecodeLimits, spool: Path) -> None:
        """Starts `size` processes in the background. `spool` is an existing folder."""
        self._spool = spool
        self._decoders = tuple(_Decoder(limits) for _ in range(size))
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._is_closing = False
        # What this system does not offer them, as far as a file has shown.
        self.missing_protections: tuple[str, ...] = ()
        self._lock = threading.Lock()
        # Linux ends such a child with the thread, not the process, that started it. So one thread
        # starts them all, and it lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")
        for decoder in self._decoders:
            self._starter.submit(self._renew, decoder)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that run now."""
        ids = (decoder.process_id for decoder in self._decoders)
        return tuple(process_id for process_id in ids if process_id is not None)

    @property
    def num_deaths(self) -> int:
        """Processes that died on a file, or were killed while they were on one."""
        return sum(decoder.num_deaths for decoder in self._decoders)

    def decode(
        self,
        media: Path,
        on_progress: OnProgress = lambda _seconds: None,
        request: DecodeRequest = MIX,
        on_head: OnHead | None = None,
    ) -> Recording:
        """The sound of a media file, 16 kHz. Blocks; any thread may call it.

        `on_progress` is called once a minute of audio, `on_head` once, of a mix that is longer than
        a head. Raises EmptyMedia, UnreadableMedia, NoAudioTrack, MediaLimitExceeded,
        TooManyChannels, DecoderUnavailable, StorageFull, ShuttingDown.
        """
        with contextlib.ExitStack() as undo:
            with self._decoder() as decoder, _open_media(media) as source:
                samples = undo.enter_context(_spool_file(self._spool))
                if on_head is not None and not request.splits_channels:
                    on_progress = _telling_head(on_head, samples, on_progress)
                done = decoder.decode(request, source.fileno(), samples.fileno(), on_progress)
            undo.pop_all()
        return Recording(samples, done.warnings, done.num_channels)

    def close(self) -> None:
        """Ends every process. Callers under way and in line get ShuttingDown."""
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            for decoder in self._decoders:
                decoder.kill()
        # Callers under way fail by that, and put theirs back.
        for _ in self._decoders:
            self._idle.get().end()
        self._starter.shutdown()
        # For callers in line: each puts it back, which lets the next one go.
        self._idle.put(self._decoders[0])

    @contextlib.contextmanager
    def _decoder(self) -> Iterator[_Decoder]:
        """A running decoder for the length of a with block, after waiting in line for it."""
        decoder = self._idle.get()
        try:
            if self._is_closing:
                raise _shutting_down()
            if not decoder.is_running:
                self._starter.submit(self._start, decoder).result()
            yield decoder
        except Exception:
            # By the closing, most likely; in any case the file may be sent elsewhere.
            if self._is_closing:
                raise _shutting_down() from None
            raise
        finally:
            self._give_back(decoder)

    def _give_back(self, decoder: _Decoder) -> None:
        if decoder.missing_protections and not self.missing_protections:
            self.missing_protections = decoder.missing_protections
            names = ", ".join(self.missing_protections)
            logger.warning("This system leaves decoder processes without: %s.", names)
        if decoder.is_fit or self._is_closing:
            self._idle.put(decoder)
        else:
            self._starter.submit(self._renew, decoder)

    def _renew(self, decoder: _Decoder) -> None:
        """On the starter's thread: makes it ready for the next caller, as far as can be."""
        with contextlib.suppress(DecoderUnavailable, ShuttingDown):
            self._start(decoder)
        self._idle.put(decoder)

    def _start(self, decoder: _Decoder) -> None:
        """On the starter's thread. Raises DecoderUnavailable, ShuttingDown."""
        with self._lock:
            if self._is_closing:
                raise _shutting_down()
            decoder.start()


class _Decoder:
    """One decoder process after another, and the socket to it. One owner at a time."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._received = b""
        self._is_ready = False
        self._is_busy = False
        self._num_files = 0
        self.num_deaths = 0
        self.missing_protections: tuple[str, ...] = ()

    @property
    def process_id(self) -> int | None:
        """None while no process runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether there is a process; it may have come to its end a moment ago."""
        return self.process_id is not None

    @property
    def is_fit(self) -> bool:
        """Whether the process may have another file."""
        return self.is_running and not self._is_busy and self._num_files < MAX_FILES_PER_PROCESS

    def start(self) -> None:
        """A fresh process in place of the one before. Raises DecoderUnavailable."""
        self.end()
        try:
            self._connection, theirs = socket.socketpair()
            with theirs:
                self._process = _start_process(theirs, self._limits)
        except OSError as error:
            logger.error("No decoder process could be started: %s.", error)
            raise _unavailable() from None
        self._received = b""
        self._is_ready = self._is_busy = False
        self._num_files = 0

    def kill(self) -> None:
        """From any thread; the owner notices by the end of the connection."""
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> None:
        """Kills the process and gives back what it took."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def decode(
        self, request: DecodeRequest, media: int, samples: int, on_progress: OnProgress
    ) -> Done:
        """Has the file at descriptor `media` written to `samples`.

        Raises as DecoderPool.decode. Fit for another file only if the process itself had the last
        word.
        """
        self._is_busy = True
        self._num_files += 1
        self._await_ready()
        deadline = time.monotonic() + self._limits.timeout
        self._ask(request, media, samples)
        while True:
            match self._answer(deadline):
                case Progress(num_samples):
                    on_progress(num_samples / SAMPLE_RATE)
                case Done(warnings, num_channels):
                    self._is_busy = False
                    shown = tuple(text[:_MAX_SENTENCE] for text in warnings[:_MAX_SENTENCES])
                    return Done(shown, num_channels)
                case Failed(code, detail):
                    self._is_busy = False
                    raise _REPORTED.get(code, UnreadableMedia)(detail[:_MAX_SENTENCE])

    def _await_ready(self) -> None:
        """Raises DecoderUnavailable when the process does not get so far."""
        if self._is_ready:
            return
        try:
            answer = self._receive(time.monotonic() + START_TIMEOUT)
        except (OSError, EOFError, ValueError) as error:
            logger.error("A decoder process did not start: %s.", self._end_of_process(error))
            raise _unavailable() from None
        if isinstance(answer, Ready):
            self.missing_protections = answer.unhardened
        self._is_ready = True

    def _ask(self, request: DecodeRequest, media: int, samples: int) -> None:
        assert self._connection is not None, "only a started decoder is asked"
        try:
            socket.send_fds(self._connection, [request.to_line()], [media, samples])
        except OSError as error:
            raise self._crash(error) from None

    def _answer(self, deadline: float) -> Answer:
        """The next answer. Raises MediaLimitExceeded past the deadline, or as `_crash` without."""
        try:
            return self._receive(deadline)
        except TimeoutError:
            raise MediaLimitExceeded(
                f"Decoding the file took longer than {self._limits.timeout:.10g} s, the most this "
                "server gives it. Split the file, or convert it to WAV or FLAC, and send that."
            ) from None
        except (OSError, EOFError, ValueError) as error:
            raise self._crash(error) from None

    def _receive(self, deadline: float) -> Answer:
        """Raises TimeoutError past the deadline; OSError, EOFError or ValueError without sense."""
        assert self._connection is not None, "only a started decoder answers"
        while b"\n" not in self._received:
            if len(self._received) > MAX_LINE_BYTES:
                raise ValueError("too long a line")
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._connection.recv(4096)
            if not data:
                raise EOFError
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return from_line(line)

    def _crash(self, error: Exception) -> UnreadableMedia | DecoderUnavailable:
        """What to tell the caller whose file the process did not survive."""
        reason = self._end_of_process(error)
        self.num_deaths += 1
        logger.warning("A decoder process failed on a file: %s.", reason)
        if reason == signal.SIGKILL.name:
            # No fault of the file, which has other signals: somebody's, or of too little memory.
            return DecoderUnavailable(
                "The decoder was killed while it read the file. Send the file again.", retry_after=5
            )
        return UnreadableMedia(
            f"The decoder failed on this file ({reason}), and nothing could be read from it. "
            "Convert it to WAV or FLAC, and send that."
        )

    def _end_of_process(self, error: Exception) -> str:
        """Makes sure of it, and says how it came."""
        assert self._process is not None, "only a started decoder comes to an end"
        if not isinstance(error, EOFError | OSError):
            return "it answered nonsense"
        # The connection ends a moment before the process does.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        if status is None:
            return "it does not answer"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _start_process(connection: socket.socket, limits: DecodeLimits) -> subprocess.Popen[bytes]:
    """A decoder process at the other end of `connection`. Raises OSError."""
    command = [sys.executable, "-m", "simple_asr.audio.decoder_process", limits.to_json()]
    # Modules come from where the server's do. No other variable is passed: some hold secrets.
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path)),
        # numpy's library of linear algebra, which is not used, would start a thread for each core.
        "OPENBLAS_NUM_THREADS": "1",
    }
    if library_path := os.environ.get("LD_LIBRARY_PATH"):
        # No setting: where Python was started by it, Python does not start without it.
        environment["LD_LIBRARY_PATH"] = library_path
    return subprocess.Popen(  # noqa: S603  (no part of the command comes from outside)
        command,
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=None if logger.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
        cwd="/",
        env=environment,
    )


def _open_media(media: Path) -> FileIO:
    """Raises EmptyMedia, UnreadableMedia, DecoderUnavailable."""
    try:
        status = media.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableMedia("This is not a file: a folder, a pipe or a device. Name a file.")
        if status.st_size == 0:
            raise EmptyMedia("The file is empty: 0 bytes. Check it, and send it again.")
        return media.open("rb", buffering=0)
    except (FileNotFoundError, PermissionError) as error:
        raise UnreadableMedia(f"The file could not be opened: {error.strerror}.") from None
    except OSError as error:
        logger.error("A media file could not be opened: %s.", error.strerror)
        raise _unavailable() from None


def _spool_file(spool: Path) -> IO[bytes]:
    """A file without a name. Raises StorageFull, DecoderUnavailable."""
    try:
        return tempfile.TemporaryFile(dir=spool, buffering=0)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "The server has no disk space left for decoded audio. Try again later."
            ) from None
        logger.error("No file could be made in the spool folder: %s.", error.strerror)
        raise _unavailable() from None


def _telling_head(on_head: OnHead, samples: IO[bytes], on_progress: OnProgress) -> OnProgress:
    """`on_progress`, which tells of the head as well, once, when it is there."""
    is_told = False

    def progress(seconds: float) -> None:
        nonlocal is_told
        on_progress(seconds)
        if seconds >= HEAD_SECONDS and not is_told:
            is_told = True
            same_file = os.fdopen(os.dup(samples.fileno()), "rb")
            on_head(Recording(same_file, max_samples=HEAD_SECONDS * SAMPLE_RATE))

    return progress


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is shutting down. Send the file again.", retry_after=5)


def _unavailable() -> DecoderUnavailable:
    return DecoderUnavailable(
        "The server cannot decode media at the moment. Try again soon; if it stays so, the "
        "server's log says why.",
        retry_after=5,
    )


# What a process may report, and how much it may say of it.
_REPORTED = {
    error.code: error
    for error in (
        EmptyMedia,
        MediaLimitExceeded,
        NoAudioTrack,
        StorageFull,
        TooManyChannels,
        UnreadableMedia,
    )
}
_MAX_SENTENCES = 8
_MAX_SENTENCE = 400
