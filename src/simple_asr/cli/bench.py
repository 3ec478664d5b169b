"""`simple-asr bench`: how fast this machine recognises speech, and which models keep up."""

from __future__ import annotations

import asyncio
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from simple_asr.assembly import build_model_store
from simple_asr.cli.console import log_to, notices, results
from simple_asr.cli.local import load_settings_quietly, loaded_transcriber
from simple_asr.cli.rocm import tell_rocm
from simple_asr.cli.temporary import temporary_folder
from simple_asr.engine.options import TranscribeOptions
from simple_asr.service.transcriber import Transcriber
from simple_asr.settings import Settings

app = typer.Typer(add_completion=False)

WINDOW_SECONDS = 30
# What half a minute of brisk speech comes to in tokens: 2.5 words a second, 1.3 tokens a word.
TOKENS = 100
# `<|endoftext|>` of the multilingual models and of the English ones: with both suppressed a window
# is written to its last token, whatever is heard.
END_OF_TEXT = (50257, 50256)
AT_ONCE = 8
# Faster than speech by this much leaves room for word times, retries, and other work.
COMFORTABLE = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of audio recognised in a second: one recording alone, and AT_ONCE together."""

    model: str
    alone: float
    together: float

    @property
    def verdict(self) -> str:
        if self.alone < 1:
            return "does not keep up with speech"
        if self.alone < COMFORTABLE:
            return "keeps up with speech, barely"
        return f"keeps up with speech; with {max(1, int(self.together / COMFORTABLE))} at once"


@app.command()
def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to measure. May be repeated. Absent: those on this machine."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds; the fastest counts.", min=1, max=100)] = 3,
) -> None:
    """Measure which models keep up with speech on this machine.

    Each window is half a minute of noise that is written to 100 tokens, as brisk speech would be.
    Numbers say how many seconds of audio are recognised in a second.
    """
    settings = load_settings_quietly()
    console = notices()
    names = model or _models_here(settings)
    table = Table("Model", "Alone", f"{AT_ONCE} together", "", box=None)
    with log_to(console, verbose=settings.log_level == "debug"):
        tell_rocm(settings)
        for name in names:
            with console.status(f"Measuring {name}…"):
                found = _measure(settings, name, rounds)
            table.add_row(name, f"{found.alone:.1f}×", f"{found.together:.1f}×", found.verdict)
    results().print(table)


def _models_here(settings: Settings) -> list[str]:
    models = build_model_store(settings).models()
    return [found.name for found in models if found.state != "on the hub"]


def _measure(settings: Settings, name: str, rounds: int) -> Measured:
    """Raises typer.Exit where the model cannot be loaded; the log has said why."""
    with temporary_folder() as folder:
        changes = {"default_model": name, "fallback_model": "", "spool_dir": folder}
        return _measure_loaded(settings.model_copy(update=changes), folder, rounds)


def _measure_loaded(settings: Settings, folder: Path, rounds: int) -> Measured:
    with loaded_transcriber(settings, notices()) as transcriber:
        media = noise(folder)
        asyncio.run(_seconds(transcriber, media, 1))  # What is done once, at the first request.
        alone = min(asyncio.run(_seconds(transcriber, media, 1)) for _ in range(rounds))
        together = min(asyncio.run(_seconds(transcriber, media, AT_ONCE)) for _ in range(rounds))
    return Measured(
        settings.default_model, WINDOW_SECONDS / alone, AT_ONCE * WINDOW_SECONDS / together
    )


def noise(folder: Path) -> Path:
    """A window of it, as a file."""
    samples = np.random.default_rng(0).normal(0, 3000, WINDOW_SECONDS * 16_000).astype(np.int16)
    path = folder / "noise.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        stream.writeframes(samples.tobytes())
    return path


async def _seconds(transcriber: Transcriber, media: Path, num_requests: int) -> float:
    """How long so many requests for a full window take together."""
    began = time.perf_counter()
    await asyncio.gather(
        *(transcriber.transcribe(media, full_window()) for _ in range(num_requests))
    )
    return time.perf_counter() - began


def full_window() -> TranscribeOptions:
    """Options under which a window costs the same whatever is heard in it."""
    return TranscribeOptions.model_validate(
        {
            "language": "en",
            "temperature": 0,
            "sample_len": TOKENS,
            "suppress_tokens": [-1, *END_OF_TEXT],
            "without_timestamps": True,
            "compression_ratio_threshold": None,
            "logprob_threshold": None,
            "no_speech_threshold": None,
            "speedup": 1,
            "skip_non_speech": False,
        }
    )
