"""`simple-asr transcribe`: what reaches the model, what comes out, and how the command ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from simple_asr import assembly
from simple_asr.cli.batch import NUM_AT_ONCE
from simple_asr.cli.files import Source
from simple_asr.cli.main import app
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.fake_hub import FakeHub
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.tokens import Tokenizer, sot_sequence
from simple_asr.engine.window import Decode, Priority
from simple_asr.errors import ModelUnavailable, RequestError
from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.service.parameters import read_parameters
from simple_asr.service.transcriber import LoadedModel
from simple_asr.settings import Settings
from tests.server.conftest import KEY, _live
from tests.support import WAIT, Clip, hiss

Run = Callable[..., Result]


class Model:
    """The fake model that the command loads, and the settings it was loaded with."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = FakeBackend(tokenizer)
        self.error: ModelUnavailable | None = None
        self.settings: Settings | None = None

    def load(self, settings: Settings, _: object) -> LoadedModel:
        self.settings = settings
        if self.error:
            raise self.error
        return LoadedModel([self.backend])

    @property
    def steps(self) -> list[Decode]:
        """What was asked of it, in order; the first is the warm-up's."""
        return [
            step for batch in self.backend.batches for step in batch if isinstance(step, Decode)
        ]


@pytest.fixture
def model(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model(tokenizer)
    monkeypatch.setattr(assembly, "load_model", model.load)
    return model


@pytest.fixture
def clip(home: Path) -> str:
    """Three seconds of hiss, in which the fake model hears a greeting."""
    with wave.open(str(home / "clip.wav"), "wb") as stream:
        stream.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        stream.writeframes(hiss(3))
    return "clip.wav"


# What comes out ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("model")
def test_standard_output_has_the_transcript_and_nothing_else(run: Run, clip: str) -> None:
    result = run("transcribe", clip)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello.\n", "")


@pytest.mark.usefixtures("model")
def test_any_format_can_be_chosen(run: Run, clip: str) -> None:
    documents = [run("transcribe", clip, "--format", name).stdout for name in ("json", "simple")]

    whole, simple = map(json.loads, documents)
    assert whole["segments"][0]["text"] == " Hello."
    assert simple == {"text": "Hello."}


@pytest.mark.usefixtures("model")
def test_several_documents_are_one_a_line(run: Run, clip: str) -> None:
    lines = run("transcribe", clip, clip, "-f", "simple").stdout.splitlines()

    assert [json.loads(line) for line in lines] == [{"text": "Hello."}] * 2


@pytest.mark.usefixtures("model")
def test_a_folder_gets_a_file_for_each(run: Run, clip: str) -> None:
    result = run("transcribe", clip, "-o", "out/")

    assert result.stdout == ""
    assert Path("out/clip.txt").read_text() == "Hello.\n"


@pytest.mark.usefixtures("model")
def test_nothing_is_left_where_the_command_was_used(run: Run, clip: str, home: Path) -> None:
    run("transcribe", clip)

    assert [path.name for path in home.iterdir()] == ["clip.wav"]


@pytest.mark.usefixtures("model")
def test_several_formats_are_a_list_or_repeated(run: Run, clip: str) -> None:
    run("transcribe", clip, "-o", "out/", "-f", "text,srt", "-f", "json")

    assert sorted(path.name for path in Path("out").iterdir()) == [
        "clip.json",
        "clip.srt",
        "clip.txt",
    ]


@pytest.mark.usefixtures("model")
def test_a_folder_is_resumed_where_it_stopped(run: Run, clip: str) -> None:
    Path("talks/old").mkdir(parents=True)
    for name in ("a.wav", "old/b.wav"):
        shutil.copy(clip, Path("talks", name))
    run("transcribe", "talks/a.wav", "-o", "out/")
    Path("out/a.txt").write_text("Kept.\n")

    result = run("transcribe", "talks", "-o", "out/", "--resume")

    assert result.exit_code == 0
    assert "1 of 2 recordings were done before." in result.stderr
    assert Path("out/a.txt").read_text() == "Kept.\n"
    assert Path("out/old/b.txt").read_text() == "Hello.\n"


def test_nothing_left_to_resume_needs_no_model(run: Run, clip: str, model: Model) -> None:
    Path("clip.txt").write_text("Done.\n")

    result = run("transcribe", clip, "-o", "./", "--resume")

    assert (result.exit_code, model.settings) == (0, None)


@pytest.mark.usefixtures("model")
def test_standard_input_is_a_file(clip: str) -> None:
    result = CliRunner().invoke(app, ["transcribe", "-"], input=Path(clip).read_bytes())

    assert (result.exit_code, result.stdout) == (0, "Hello.\n")


@pytest.mark.usefixtures("model")
def test_what_arrives_in_a_folder_is_transcribed_beside_it(
    run: Run, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def arrive_and_interrupt(folder: Path) -> AsyncIterator[list[Source]]:
        yield [Source(folder / clip, Path(clip))]
        raise KeyboardInterrupt

    monkeypatch.setattr("simple_asr.cli.transcribe.arrivals", arrive_and_interrupt)

    result = run("transcribe", "--watch", ".", "-f", "text,srt")

    assert Path("clip.txt").read_text() == "Hello.\n"
    assert Path("clip.srt").exists()
    assert f"{clip}: transcribed." in result.stderr


@pytest.mark.usefixtures("model")
def test_a_recording_that_was_moved_meanwhile_does_not_end_the_watch(
    run: Run, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def arrive_in_part(folder: Path) -> AsyncIterator[list[Source]]:
        yield [Source(folder / "moved.wav", Path("moved.wav")), Source(folder / clip, Path(clip))]
        raise KeyboardInterrupt

    monkeypatch.setattr("simple_asr.cli.transcribe.arrivals", arrive_in_part)

    result = run("transcribe", "--watch", ".")

    assert Path("clip.txt").read_text() == "Hello.\n"
    assert "moved.wav: " in result.stderr


@pytest.mark.usefixtures("model")
def test_what_arrives_is_not_written_over_anothers_transcript(
    run: Run, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("clip.ogg").write_bytes(Path(clip).read_bytes())

    async def arrive_one_by_one(folder: Path) -> AsyncIterator[list[Source]]:
        for name in (clip, "clip.ogg", clip):
            yield [Source(folder / name, Path(name))]
        raise KeyboardInterrupt

    monkeypatch.setattr("simple_asr.cli.transcribe.arrivals", arrive_one_by_one)

    result = run("transcribe", "--watch", ".")

    assert "clip.ogg: transcribed" not in result.stderr
    assert result.stderr.replace("\n", " ").count("would both be clip.txt") == 1


# A server in the model's place ------------------------------------------------------------------


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def address(
    transcriber: FakeTranscriber, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    keys_file = folder / "keys.txt"
    keys_file.write_text(f"{KEY}\n")
    keys_file.chmod(0o600)
    settings = Settings.model_validate(
        {"keys_file": keys_file, "spool_dir": folder / "spool", "jobs_dir": folder / "jobs"}
    )
    keys = KeyStore(keys_file)
    keys.reload()
    with _live(create_app(settings, transcriber, keys)) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_server_does_the_work_with_the_same_options(
    run: Run, clip: str, address: str, transcriber: FakeTranscriber, model: Model
) -> None:
    result = run(
        "transcribe", clip, "-f", "srt", "--beam-size", "3", "--server", address, "--key", KEY
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert "Привет, как дела?" in result.stdout
    assert transcriber.asked[0].options == TranscribeOptions(beam_size=3)
    assert model.settings is None


def test_the_key_may_stand_in_the_environment(
    run: Run, clip: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMPLE_ASR_SERVER", address)
    monkeypatch.setenv("SIMPLE_ASR_KEY", KEY)

    assert run("transcribe", clip).stdout == "Привет, как дела?\n"


def test_a_model_is_named_to_the_server(
    run: Run, clip: str, address: str, transcriber: FakeTranscriber
) -> None:
    run("transcribe", clip, "--model", "tiny", "--server", address, "--key", KEY)

    assert transcriber.asked[0].options == TranscribeOptions(model="tiny")


def test_a_job_is_found_by_the_command_that_sent_it(
    run: Run, clip: str, address: str, transcriber: FakeTranscriber
) -> None:
    command = ("transcribe", clip, "--background", "--server", address, "--key", KEY)

    shown = [run(*command).stdout for _ in range(2)]

    assert shown == ["Привет, как дела?\n"] * 2
    assert transcriber.priorities == [Priority.BACKGROUND]


def test_what_the_server_refuses_is_told(run: Run, clip: str, address: str) -> None:
    result = run("transcribe", clip, "--server", address, "--key", "wrong")

    assert result.exit_code == 1
    assert result.stderr.startswith("clip.wav: ")


# What reaches the model -------------------------------------------------------------------------


def test_the_flags_reach_the_model(run: Run, clip: str, model: Model) -> None:
    run("transcribe", clip, "--beam-size", "3", "--language", "ru", "--task", "translate")

    assert model.steps[-1].search.beam_size == 3
    asked = sot_sequence(model.backend.tokenizer, "ru", "translate")
    assert model.steps[-1].prompt.tokens[: len(asked)] == asked


def test_any_parameter_of_the_server_can_be_given(run: Run, clip: str, model: Model) -> None:
    run("transcribe", clip, "-p", "beam_size=2", "-p", "patience=2")

    assert (model.steps[-1].search.beam_size, model.steps[-1].search.patience) == (2, 2.0)


@pytest.mark.usefixtures("model")
def test_word_times_are_in_the_document(run: Run, clip: str) -> None:
    shown = run("transcribe", clip, "--word-timestamps", "--format", "json").stdout

    assert json.loads(shown)["segments"][0]["words"][0]["word"] == " Hello."


@pytest.mark.parametrize(
    "given",
    ["beam_size=0", "beam=2", "format=xml", "temperature=nan", "language=elvish", "patience=2"],
)
def test_a_wrong_parameter_is_refused_in_the_servers_words(run: Run, clip: str, given: str) -> None:
    name, _, value = given.partition("=")
    with pytest.raises(RequestError) as refused:
        read_parameters(b"", [(name, value)])

    arguments = ["-f", value] if name == "format" else ["--param", given]
    result = run("transcribe", clip, *arguments)

    assert (result.exit_code, result.stderr) == (2, f"{refused.value}\n")


def test_all_faults_are_told_at_once(run: Run, clip: str) -> None:
    result = run("transcribe", clip, "--beam-size", "0", "-p", "best_of=x")

    assert re.fullmatch("beam_size '0': .*\nbest_of 'x': .*\n", result.stderr)


def test_a_parameter_with_two_values_is_refused(run: Run, clip: str) -> None:
    result = run("transcribe", clip, "--beam-size", "2", "--param", "beam_size=3")

    assert result.exit_code == 2
    assert "Give it once." in result.stderr


def test_a_parameter_without_a_value_is_refused(run: Run, clip: str) -> None:
    result = run("transcribe", clip, "--param", "beam_size")

    assert (result.exit_code, result.stderr) == (2, "--param beam_size: should be NAME=VALUE.\n")


# Which model ------------------------------------------------------------------------------------


def test_the_model_is_the_settings_and_its_fallback_too(run: Run, clip: str, model: Model) -> None:
    run("transcribe", clip)

    assert model.settings is not None
    assert (model.settings.default_model, model.settings.fallback_model) == ("turbo", "base")


def test_a_machine_without_a_gpu_is_not_told_so_at_every_use(
    run: Run, clip: str, model: Model
) -> None:
    run("transcribe", clip)

    assert model.settings is not None
    assert model.settings.model_device == "auto"


def test_the_servers_limit_of_requests_does_not_keep_files_out(
    run: Run, clip: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_WAITING_REQUESTS", "1")

    run("transcribe", clip)

    assert model.settings is not None
    assert model.settings.max_waiting_requests == NUM_AT_ONCE


def test_a_model_that_is_named_has_no_substitute(run: Run, clip: str, model: Model) -> None:
    run("transcribe", clip, "--model", "small")

    assert model.settings is not None
    assert (model.settings.default_model, model.settings.fallback_model) == ("small", "")


def test_a_model_that_cannot_be_loaded_ends_the_command_with_the_reason(
    run: Run, clip: str, model: Model
) -> None:
    model.error = ModelUnavailable("The model 'small' is not here. Download it.")

    result = run("transcribe", clip, "--model", "small")

    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr == (
        "The model could not be loaded: The model 'small' is not here. Download it.\n"
    )


# How the command ends ---------------------------------------------------------------------------


@pytest.mark.usefixtures("model")
def test_a_file_without_sound_fails_alone(run: Run, clip: str) -> None:
    Path("notes.txt").write_text("Not a recording.")

    result = run("transcribe", "notes.txt", clip)

    assert (result.exit_code, result.stdout) == (1, "Hello.\n")
    assert re.fullmatch(r"notes\.txt: No audio could be read.*\n", result.stderr)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", "The file is empty: 0 bytes."), (b"RIFF", "No audio could be read")],
)
def test_what_is_wrong_with_standard_input_is_told_of_standard_input(
    content: bytes, fault: str
) -> None:
    result = CliRunner().invoke(app, ["transcribe", "-"], input=content)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"standard input: {fault}")


@pytest.mark.parametrize("file", ["missing.wav", "none/*.wav", "empty"])
def test_what_leads_to_nothing_is_refused_before_any_work(
    run: Run, clip: str, model: Model, file: str
) -> None:
    Path("empty").mkdir()

    result = run("transcribe", clip, file)

    assert result.exit_code == 2
    assert file in result.stderr
    assert model.settings is None


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "Name files to transcribe"),
        (["clip.wav", "--watch", "."], "--watch: "),
        (["clip.wav", "--resume"], "--resume: "),
        (["clip.wav", "--background"], "--background: "),
    ],
)
def test_what_cannot_be_meant_together_is_refused(
    run: Run, clip: str, model: Model, arguments: list[str], fault: str
) -> None:
    result = run("transcribe", *arguments)

    assert (result.exit_code, model.settings) == (2, None)
    assert result.stderr.startswith(fault)


ENDINGS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, with an empty folder in the place of /tmp."""
    Path("tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "simple_asr", "transcribe", *arguments],
        env={**os.environ, **environment, "TMPDIR": str(Path("tmp").absolute())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        yield command


def temporary() -> list[str]:
    return [path.name.rpartition("-")[0] for path in Path("tmp").iterdir()]


@ENDINGS
def test_it_can_be_ended_while_the_model_is_on_its_way(
    clip: str, number: signal.Signals, status: int
) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "vocabulary.json": b"[0]"}
    with FakeHub() as hub:
        hub.publish("someone/whisper", {**files, "model.bin": b"weights"})
        hub.gate.clear()
        environment = {
            "DEFAULT_MODEL": "someone/whisper",
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "false",
        }
        with process(clip, **environment) as command:
            assert hub.is_asked_for_weights.wait(WAIT)
            there_before = temporary()
            command.send_signal(number)
            said = command.communicate(timeout=WAIT)

    assert (command.returncode, said) == (status, (b"", b""))
    assert (there_before, temporary()) == (["simple-asr"], [])


@ENDINGS
def test_it_can_be_ended_in_the_midst_of_its_work(
    clip: str, address: str, transcriber: FakeTranscriber, number: signal.Signals, status: int
) -> None:
    transcriber.is_stuck_late = True
    with process(clip, "--server", address, "--key", KEY) as command:
        assert transcriber.started.wait(WAIT)
        there_before = temporary()
        command.send_signal(number)
        said = command.communicate(timeout=WAIT)

    assert (command.returncode, said) == (status, (b"", b""))
    assert (there_before, temporary()) == (["simple-asr"], [])


# With real weights ------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.usefixtures("base_model")
def test_real_speech_becomes_its_words(models_root: Path, speech: list[Clip]) -> None:
    [clip] = [clip for clip in speech if clip.path.stem == "quick_brown_fox"]
    environment = {"MODEL_DOWNLOAD_ROOT": str(models_root), "DEFAULT_MODEL": "base"}

    ended = subprocess.run(
        [sys.executable, "-m", "simple_asr", "transcribe", clip.path],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{clip.text}\n", "")
