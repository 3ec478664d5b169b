"""A media file on its way to samples: all of it, and before that its head."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from simple_asr.audio.decode import HEAD_SECONDS
from simple_asr.audio.decoder_protocol import DecodeRequest
from simple_asr.audio.features import Samples
from simple_asr.errors import Cancelled
from simple_asr.service.stopwatch import Stopwatch

__all__ = ["HEAD_SECONDS", "Borrowed", "DecodedAudio", "Decoder", "Decoding"]


class DecodedAudio(Samples, AbstractContextManager["DecodedAudio"], Protocol):
    """What a decoder hands over (`audio.recording.Recording`); closing it frees its storage."""

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> Sequence[Samples]:
        """One, unless they were to be split."""
        ...


class Decoder(Protocol):
    """Media file to samples (`audio.decode.DecoderPool`)."""

    def decode(
        self,
        media: Path,
        on_progress: Callable[[float], None],
        request: DecodeRequest,
        on_head: Callable[[DecodedAudio], None] | None,
    ) -> DecodedAudio:
        """Blocks. `on_progress` is told the seconds decoded; what it raises ends the work.

        `on_head` is told, once, the head of a longer recording, and closes it.
        """
        ...

    def close(self) -> None: ...


class Borrowed:
    """A decoder that several transcribers share: none of them closes it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = decoder.decode

    def close(self) -> None:
        """Nothing: whoever lent it closes it."""


class Decoding:
    """Goes on in a thread. As a context it closes what came of it; who leaves it early stops it."""

    def __init__(
        self,
        decoder: Decoder,
        threads: ThreadPoolExecutor,
        media: Path,
        request: DecodeRequest,
        stopwatch: Stopwatch,
        *,
        wants_head: bool,
    ) -> None:
        """Begins. Only with `wants_head` is there one."""
        self._has_left = threading.Event()
        # None where the recording has come to its end, or to grief, before there was a head.
        self._head: Future[DecodedAudio | None] = Future()
        self._head.set_running_or_notify_cancel()  # Whoever waits for it cannot cancel it.

        def stop_if_left(_: float) -> None:
            if self._has_left.is_set():
                raise Cancelled("The caller left while the file was being decoded.")

        def decode() -> DecodedAudio:
            on_head = self._head.set_result if wants_head else None
            with stopwatch.decoding():
                return decoder.decode(media, stop_if_left, request, on_head)

        def had_no_head(_: Future[DecodedAudio]) -> None:
            if not self._head.done():
                self._head.set_result(None)

        self._whole = threads.submit(decode)
        self._whole.add_done_callback(had_no_head)

    async def head(self) -> DecodedAudio | None:
        """The first ten minutes, as soon as they are there.

        None where there is no more, or no head was wanted; that is known when all is decoded.
        """
        return await asyncio.wrap_future(self._head)

    @property
    def has_failed(self) -> bool:
        """Whether `whole` will raise."""
        return self._whole.done() and self._whole.exception() is not None

    async def whole(self) -> DecodedAudio:
        """All of it. Raises as the decoder does."""
        return await asyncio.wrap_future(self._whole)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._has_left.set()
        self._whole.cancel()
        for future in (self._head, self._whole):
            future.add_done_callback(_close_result)


def _close_result(decoding: Future[DecodedAudio] | Future[DecodedAudio | None]) -> None:
    if not decoding.cancelled() and decoding.exception() is None:
        recording = decoding.result()
        if recording is not None:
            recording.__exit__(None, None, None)
