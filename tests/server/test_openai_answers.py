"""A stream: its deltas join to the text, whatever blanks the segments bring; closing ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_asr.server.openai_answers import Deltas, stream_messages
from simple_asr.server.openai_fields import read_audio_request
from simple_asr.server.record import RequestRecord
from simple_asr.service.fake import FakeTranscriber


@pytest.mark.anyio
async def test_a_caller_who_leaves_a_stream_ends_the_work_at_once(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    transcriber = FakeTranscriber()
    asked = read_audio_request(b"", [], [], "transcribe")
    events = transcriber.events(tmp_path / "clip.wav", asked.parameters.options)
    messages = stream_messages(events, asked, RequestRecord("id"))
    await anext(messages)

    await messages.aclose()

    assert transcriber.ended.is_set()


@given(st.lists(st.text(alphabet="ab \n", max_size=5), max_size=6))
def test_deltas_join_to_the_stripped_text(texts: list[str]) -> None:
    deltas = Deltas()

    told = [deltas.next(text) for text in texts]

    assert "".join(told) == deltas.text == "".join(texts).strip()


def test_a_segment_of_blanks_alone_is_not_told() -> None:
    deltas = Deltas()

    assert [deltas.next(" One."), deltas.next("  "), deltas.next("Two.")] == ["One.", "", "  Two."]
