"""The client and a live server: what comes back, and what is raised where nothing does."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from simple_asr import client as client_module
from simple_asr.client import AsyncClient, Client, EventReader, Health, Refused, Unreachable
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import EngineFailed, Overloaded, UnreadableMedia
from simple_asr.server import event_stream
from simple_asr.server.app import create_app
from simple_asr.server.event_stream import comment
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.model import Transcript
from tests.server.conftest import KEY, _live

MEDIA = b"RIFF....WAVE"
PAGE = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.+?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def address(transcriber: FakeTranscriber, tmp_path: Path) -> Iterator[str]:
    keys_file = tmp_path / "keys.txt"
    keys_file.write_text(f"{KEY}\n")
    keys_file.chmod(0o600)
    settings = Settings.model_validate(
        {"keys_file": keys_file, "spool_dir": tmp_path / "spool", "jobs_dir": tmp_path / "jobs"}
    )
    keys = KeyStore(keys_file)
    keys.reload()
    with _live(create_app(settings, transcriber, keys)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, KEY) as client:
        yield client


def awaited(address: str, ask: Callable[[AsyncClient], object]) -> object:
    """What an asynchronous client answers to one question."""

    async def answer() -> object:
        async with AsyncClient(address, KEY) as client:
            result = ask(client)
            assert asyncio.iscoroutine(result)
            return await result

    return asyncio.run(answer())


# What comes back --------------------------------------------------------------------------------


def test_a_transcript_comes_back_whole(client: Client) -> None:
    assert client.transcribe(MEDIA) == TRANSCRIPT


def test_the_asynchronous_client_answers_the_same(address: str) -> None:
    assert awaited(address, lambda client: client.transcribe(MEDIA)) == TRANSCRIPT
    assert awaited(address, lambda client: client.write(MEDIA, "text")) == "Привет, как дела?\n"
    assert awaited(address, lambda client: client.health()) == Health("healthy", "turbo")


def test_events_come_in_order(client: Client) -> None:
    assert list(client.stream(MEDIA)) == [
        Progress(0.0, 2.5),
        SegmentDone(TRANSCRIPT.segments[0]),
        Progress(2.5, 2.5),
        Done(TRANSCRIPT),
    ]


def test_a_segment_comes_before_the_rest_is_known(
    client: Client, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True

    events = client.stream(MEDIA)
    kinds = [type(next(events)) for _ in range(2)]
    close(events)

    assert kinds == [Progress, SegmentDone]
    assert transcriber.ended.wait(60)


def close(events: Iterator[Event]) -> None:
    getattr(events, "close")()  # noqa: B009  (a generator, though its type is not told)


def test_options_reach_the_server_as_they_are(client: Client, transcriber: FakeTranscriber) -> None:
    client.transcribe(
        MEDIA,
        language="ru",
        temperature=[0, 0.4],
        word_timestamps=True,
        logprob_threshold=None,
    )

    assert transcriber.asked[0].options == TranscribeOptions(
        language="ru", temperature=(0.0, 0.4), word_timestamps=True, logprob_threshold=None
    )


def test_media_may_be_a_path_its_content_or_an_open_file(
    client: Client, transcriber: FakeTranscriber, tmp_path: Path
) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(MEDIA)

    for media in (path, str(path), MEDIA, io.BytesIO(MEDIA)):
        client.transcribe(media)

    assert [asked.content for asked in transcriber.asked] == [MEDIA] * 4


def test_a_file_is_written_in_the_format_that_is_named(client: Client) -> None:
    assert client.write(MEDIA, "srt").startswith("1\n00:00:00,000 --> 00:00:02,500\n")


def test_json_is_written_as_the_server_writes_it(client: Client) -> None:
    assert client.write(MEDIA, "json") == FORMATS["json"].write(TRANSCRIPT)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_file_that_takes_longer_than_a_silence_may_last_is_written(
    address: str, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setattr(client_module, "READ_SECONDS", 1.0)
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.1)
    transcriber.is_stuck = True
    num_comments = 0

    def free_late(text: str) -> bytes:
        nonlocal num_comments
        num_comments += 1
        if num_comments == 15:  # Longer than READ_SECONDS after the first.
            transcriber.free()
        return comment(text)

    monkeypatch.setattr(event_stream, "comment", free_late)

    if is_async:
        written = awaited(address, lambda client: client.write(MEDIA, "text"))
    else:
        with Client(address, KEY) as client:
            written = client.write(MEDIA, "text")

    assert written == "Привет, как дела?\n"


def test_warnings_and_the_model_come_with_the_transcript(
    client: Client, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = replace(TRANSCRIPT, warnings=("The end of the file is missing.",))
    transcriber.state = ModelState("ready", requested="turbo", served="base")

    transcript: Transcript = client.transcribe(MEDIA)

    assert transcript.warnings == ("The end of the file is missing.",)
    assert transcript.model == "base"


def test_health_is_told_while_the_model_is_loaded(
    client: Client, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("loading", "turbo", "turbo")

    assert client.health() == Health("loading", "turbo")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_page_runs(
    example: str,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "clip.wav").write_bytes(MEDIA)
    monkeypatch.chdir(tmp_path)

    exec(example.replace("http://localhost:9854", address).replace("your-api-key", KEY), {})  # noqa: S102  (ours)

    assert "Привет" in capsys.readouterr().out or (tmp_path / "clip.srt").exists()


# Jobs -------------------------------------------------------------------------------------------


def test_the_same_call_finds_its_job(
    client: Client, address: str, transcriber: FakeTranscriber
) -> None:
    transcripts = [
        client.transcribe(MEDIA, background=True, language="ru"),
        client.transcribe(MEDIA, background=True, language="ru"),
        awaited(address, lambda other: other.transcribe(MEDIA, background=True, language="ru")),
    ]
    client.transcribe(MEDIA, background=True, language="en")
    client.transcribe(MEDIA + b"!", background=True, language="ru")

    assert transcripts == [TRANSCRIPT] * 3
    assert [(asked.content, asked.options.language) for asked in transcriber.asked] == [
        (MEDIA, "ru"),
        (MEDIA, "en"),
        (MEDIA + b"!", "ru"),
    ]


@pytest.mark.parametrize("kind", [httpx2.Client, httpx2.AsyncClient])
def test_a_job_that_is_found_is_not_sent_again(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    client.transcribe(MEDIA, background=True)
    monkeypatch.delattr(kind, "post")

    again = (
        client.transcribe(MEDIA, background=True)
        if kind is httpx2.Client
        else awaited(address, lambda other: other.transcribe(MEDIA, background=True))
    )

    assert again == TRANSCRIPT


def test_media_that_can_be_read_only_once_is_a_job_too(
    client: Client, transcriber: FakeTranscriber
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert client.transcribe(Pipe(MEDIA), background=True) == TRANSCRIPT
    assert transcriber.asked[0].content == MEDIA


@pytest.mark.parametrize("is_async", [False, True])
def test_a_job_is_asked_after_again_where_the_connection_breaks(
    client: Client,
    address: str,
    transcriber: FakeTranscriber,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    monkeypatch.setattr(client_module, "PAUSE_SECONDS", 0.0)
    breaks = iter([True])

    class BreakingReader(EventReader):
        def feed(self, line: str) -> Iterator[Event]:
            for event in super().feed(line):
                yield event
                if isinstance(event, SegmentDone) and next(breaks, False):
                    raise Unreachable("The connection broke.")

    monkeypatch.setattr(client_module, "EventReader", BreakingReader)

    async def events_of(other: AsyncClient) -> list[Event]:
        return [event async for event in other.stream(MEDIA, background=True)]

    events = awaited(address, events_of) if is_async else client.stream(MEDIA, background=True)

    assert isinstance(events, Iterable)
    told = [event for event in events if not isinstance(event, Progress)]
    assert told == [SegmentDone(TRANSCRIPT.segments[0]), Done(TRANSCRIPT)]
    assert len(transcriber.asked) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_job_that_failed_is_sent_again(
    client: Client, address: str, transcriber: FakeTranscriber, is_async: bool
) -> None:
    def transcribe() -> object:
        if is_async:
            return awaited(address, lambda other: other.transcribe(MEDIA, background=True))
        return client.transcribe(MEDIA, background=True)

    transcriber.error = UnreadableMedia("This is no audio.")
    with pytest.raises(Refused, match=r"This is no audio\."):
        transcribe()

    transcriber.error = None

    assert transcribe() == TRANSCRIPT


# What is raised ---------------------------------------------------------------------------------


def test_a_refusal_carries_the_problem(client: Client) -> None:
    with pytest.raises(Refused, match="beam_size") as refused:
        client.transcribe(MEDIA, beam_size=99)

    assert (refused.value.status, refused.value.field) == (422, "beam_size")
    assert refused.value.problem["code"] == "invalid_parameter"


@pytest.mark.parametrize(
    ("address", "key"),
    [("http://300.1.1.1", KEY), ("http://a\x01b", KEY), ("http://localhost", "ключ")],
)
def test_what_is_no_address_or_no_key_is_told_as_such(address: str, key: str) -> None:
    with pytest.raises(Unreachable, match=r"no address of a server|no key has"):
        Client(address, key)


def test_a_wrong_key_is_refused(address: str) -> None:
    with closing(Client(address, "wrong")) as client, pytest.raises(Refused) as refused:
        client.transcribe(MEDIA)

    assert refused.value.status == 403


def test_an_error_midway_is_raised_and_not_tried_again(
    client: Client, transcriber: FakeTranscriber
) -> None:
    transcriber.late_error = Overloaded("Too many.", retry_after=1)

    with pytest.raises(Refused) as refused:
        client.transcribe(MEDIA)

    assert refused.value.status == 503
    assert len(transcriber.asked) == 1


def test_a_busy_server_is_asked_again(client: Client, transcriber: FakeTranscriber) -> None:
    busy_once = iter([Overloaded("Too many.", retry_after=1)])
    real_admit = transcriber._admit

    async def admit(media: Path, options: TranscribeOptions) -> None:
        await real_admit(media, options)
        if error := next(busy_once, None):
            raise error

    transcriber._admit = admit  # type: ignore[method-assign]  # busy for one call alone

    assert client.transcribe(MEDIA) == TRANSCRIPT
    assert len(transcriber.asked) == 2


def test_the_last_refusal_is_raised(address: str, transcriber: FakeTranscriber) -> None:
    transcriber.error = EngineFailed("The model failed.")

    with closing(Client(address, KEY, retries=0)) as client, pytest.raises(Refused, match="failed"):
        client.write(MEDIA, "text")


def test_no_server_at_all_is_unreachable() -> None:
    with closing(Client("http://127.0.0.1:9", KEY)) as client, pytest.raises(Unreachable):
        client.transcribe(MEDIA)


def test_an_answer_that_breaks_off_is_no_transcript() -> None:
    reader = EventReader("base")
    assert list(reader.feed("event: done")) == []

    with pytest.raises(Unreachable, match="broke before"):
        reader.finish()
