"""Media and options in, a transcript or a stream of events out: the seam every door goes through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from simple_asr.engine.options import TranscribeOptions
from simple_asr.transcript.events import Event
from simple_asr.transcript.model import Transcript


@dataclass(frozen=True, slots=True)
class ModelState:
    """`ready` only after one real inference. `served` differs from `requested` on a fallback.

    `reason` is a sentence for the operator: why it is loading, degraded or failed.
    """

    status: Literal["loading", "ready", "failed"]
    requested: str
    served: str
    reason: str = ""

    @property
    def is_degraded(self) -> bool:
        """Another model than the one asked for is served."""
        return self.status == "ready" and self.served != self.requested


class Transcriber(Protocol):
    """What the doors know of speech recognition."""

    @property
    def model_state(self) -> ModelState:
        """The state now; never waits."""
        ...

    def events(self, media: Path, options: TranscribeOptions) -> AsyncIterator[Event]:
        """Progress and segments as they come, then Done. Closing the iterator cancels the work.

        Raises MediaError, InvalidParameter, Overloaded, ModelNotReady, EngineFailed.
        """
        ...

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        """The finished transcript; raises as `events` does. Cancelling the task cancels the work."""
        ...
