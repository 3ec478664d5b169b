"""A running server in the place of this machine's model, for `simple-asr transcribe --server`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from simple_asr.client import AsyncClient
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import MissingFile
from simple_asr.service.transcriber import ModelState
from simple_asr.transcript.events import Done, Event
from simple_asr.transcript.model import Transcript


class RemoteTranscriber:
    """Behaves as a Transcriber, and has a server do the work. Raises Refused, Unreachable,
    MissingFile."""

    model_state = ModelState("ready", requested="", served="")

    def __init__(self, client: AsyncClient, *, is_background: bool = False) -> None:
        """With `is_background` the server goes on when this program is broken off."""
        self._client = client
        self._is_background = is_background

    async def events(self, media: Path, options: TranscribeOptions) -> AsyncIterator[Event]:
        asked = options.model_dump(mode="json", exclude_unset=True)
        try:
            streaming = self._client.stream(media, background=self._is_background, **asked)
            async for event in streaming:
                yield event
        except OSError as error:  # Of this file alone: the others go on.
            raise MissingFile(
                f"The file cannot be read: {error.strerror or error}. Check that it is there and "
                "that you may read it."
            ) from error

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        async for event in self.events(media, options):
            if isinstance(event, Done):
                return event.transcript
        raise AssertionError("events ends with Done or an error")
