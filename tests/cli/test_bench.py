"""`simple-asr bench`: what it measures, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from simple_asr import assembly
from simple_asr.cli.bench import TOKENS, Measured, full_window, noise
from simple_asr.cli.local import loaded_transcriber
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decode
from simple_asr.service.transcriber import LoadedModel
from simple_asr.settings import Settings


def test_every_model_is_measured_by_full_windows(
    run: Callable[..., Result], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FakeBackend(tokenizer)
    monkeypatch.setattr(assembly, "load_model", lambda *_: LoadedModel([backend]))

    result = run("bench", "--model", "tiny", "--rounds", "1")

    decodes = [step for batch in backend.batches for step in batch if isinstance(step, Decode)]
    assert result.exit_code == 0
    assert "tiny" in result.stdout
    assert "keeps up with speech" in result.stdout
    # The first is the warm-up's.
    assert {step.search.max_new_tokens for step in decodes[1:]} == {TOKENS}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("alone", "together", "verdict"),
    [
        (0.9, 2.0, "does not keep up with speech"),
        (1.5, 2.0, "keeps up with speech, barely"),
        (4.0, 9.0, "keeps up with speech; with 4 at once"),
    ],
)
def test_the_verdict_leaves_room_for_other_work(
    alone: float, together: float, verdict: str
) -> None:
    assert Measured("base", alone, together).verdict == verdict


@pytest.mark.weights
@pytest.mark.anyio
async def test_a_window_of_noise_is_written_to_its_last_token(
    models_root: Path, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "default_model": "base",
            "model_device": "cpu",
            "model_download_root": models_root,
            "hf_hub_offline": True,
            "spool_dir": tmp_path,
        }
    )
    with loaded_transcriber(settings, Console(quiet=True)) as transcriber:
        transcript = await transcriber.transcribe(noise(tmp_path), full_window())

    assert [len(segment.tokens) for segment in transcript.segments] == [TOKENS]
