"""curl, the real one: every command of docs/api.md, and the specification's examples."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.server.app import create_app
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from simple_asr.transcript.formats import whisper_result

if shutil.which("curl") is None:
    pytest.skip("curl is not installed", allow_module_level=True)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(curl .+?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
JSON_RESULT = json.loads(json.dumps(whisper_result(TRANSCRIPT)))


@pytest.fixture(scope="module")
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture(scope="module")
def server_settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(audio_urls=True)


@pytest.fixture(scope="module")
def port(
    server_settings: Settings,
    transcriber: FakeTranscriber,
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[..., AbstractContextManager[int]],
) -> Iterator[int]:
    with live(create_app(server_settings, transcriber, make_key_store(server_settings))) as port:
        yield port


@pytest.fixture
def curl(port: int, key: str, tmp_path: Path) -> Callable[[str], str]:
    """Runs a command as printed, against this server; what curl prints comes back."""
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    (tmp_path / "audio.wav").write_bytes(b"RIFF")
    with zipfile.ZipFile(tmp_path / "talks.zip", "w") as archive:
        archive.write(tmp_path / "clip.wav", "clip.wav")
    (tmp_path / "params.json").write_text('{"language": "ru"}')
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")

    def run(command: str) -> str:
        command = command.replace("http://localhost:9854", f"http://127.0.0.1:{port}")
        # A name that nobody has (RFC 6761), for the worker that is to fetch it.
        command = command.replace("https://example.com", "https://files.invalid")
        done = subprocess.run(
            ["bash", "-euc", command.replace("your-api-key", "$KEY")],
            cwd=tmp_path,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "KEY": key, "CURL_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_of_the_document_works(
    curl: Callable[[str], str], server_settings: Settings, command: str
) -> None:
    if "--url-query" in command and not _has_url_query():
        pytest.skip("this curl is older than 7.87 and has no --url-query")

    answer = curl(command)

    assert answer != ""
    assert not server_settings.spool_dir.exists() or list(server_settings.spool_dir.iterdir()) == []


def _has_url_query() -> bool:
    listed = subprocess.run(["curl", "--help", "all"], capture_output=True, text=True, check=False)
    return "--url-query" in listed.stdout


# The specification's examples, the JSON of `-d` in the field `params`: what curl can send of them.
SIMPLE = "{}"
WITH_PARAMETERS = (
    '{"language": "ru", "format": "simple", "word_timestamps": true, "temperature": 0.2}'
)
TEXT = '{"format": "text"}'
EXTENDED = (
    '{"language": "en", "task": "translate", "temperature": 0.1, "beam_size": 5, '
    '"word_timestamps": true, "initial_prompt": "This is a technical presentation about AI", '
    '"format": "json"}'
)


@pytest.mark.parametrize(
    ("document", "options", "answer"),
    [
        (SIMPLE, TranscribeOptions(), json.dumps(JSON_RESULT, ensure_ascii=False)),
        (
            WITH_PARAMETERS,
            TranscribeOptions(language="ru", word_timestamps=True, temperature=(0.2,)),
            '{"text": "Привет, как дела?"}',
        ),
        (TEXT, TranscribeOptions(), "Привет, как дела?\n"),
        (
            EXTENDED,
            TranscribeOptions(
                language="en",
                task="translate",
                temperature=(0.1,),
                beam_size=5,
                word_timestamps=True,
                initial_prompt="This is a technical presentation about AI",
            ),
            json.dumps(JSON_RESULT, ensure_ascii=False),
        ),
    ],
    ids=["simple", "with parameters", "text only", "extended"],
)
def test_an_example_of_the_specification_in_the_form_curl_can_send(
    curl: Callable[[str], str],
    transcriber: FakeTranscriber,
    document: str,
    options: TranscribeOptions,
    answer: str,
) -> None:
    printed = curl(
        'curl -X POST "http://localhost:9854/transcribe" -H "X-API-Key: your-api-key" '
        f"-H \"Content-Type: application/json\" --form 'params={document}' "
        '--form "audio_file=@audio.wav"'
    )

    assert printed == answer
    assert transcriber.asked[-1].options == options
    assert transcriber.asked[-1].content == b"RIFF"


def test_a_large_upload_without_its_length_arrives_whole(
    curl: Callable[[str], str], transcriber: FakeTranscriber
) -> None:
    curl(
        'head -c 5000000 /dev/zero | curl -X POST -T - -H "X-API-Key: your-api-key" '
        '-H "Content-Type: audio/wav" http://localhost:9854/transcribe'
    )

    assert len(transcriber.asked[-1].content) == 5_000_000


def test_curl_hears_why_its_upload_is_refused_before_it_is_sent(port: int, tmp_path: Path) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(20_000_000))

    done = subprocess.run(
        ["curl", "-sS", "-F", "audio_file=@large.wav", f"http://127.0.0.1:{port}/transcribe"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert json.loads(done.stdout)["code"] == "missing_api_key"
