"""The cluster: what is decided without one, and a real one of two replicas on this machine.

Skipped where Ray is not installed; requirements/cluster.txt has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trustme

from simple_asr.assembly import build_transcriber
from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.decode import DecoderPool
from simple_asr.audio.speech import Span
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import Division
from simple_asr.errors import (
    AsrError,
    ConfigurationError,
    EmptyMedia,
    Overloaded,
    StorageFull,
    Unavailable,
)
from simple_asr.settings import Settings
from simple_asr.transcript.events import Done, Progress
from simple_asr.transcript.formats import FORMATS, WritingOptions
from simple_asr.transcript.model import Transcript
from tests.support import WAIT, Clip, free_port

pytest.importorskip("ray", reason="Ray is not installed (requirements/cluster.txt)")

from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from ray.serve.config import HTTPOptions

from simple_asr import cluster
from simple_asr.cluster import (
    AudioPolicy,
    Backlog,
    RemoteTranscriber,
    build_application,
    check_listening,
    http_options,
    read_plan,
    replicas_wanted,
)

# What the cluster is told -------------------------------------------------------------------------


def test_a_plan_names_what_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="gpus: Extra inputs are not permitted"):
        read_plan({"gpus": 1})


def test_a_plan_has_room_for_its_fewest_replicas() -> None:
    with pytest.raises(ConfigurationError, match="At most 1 replicas and at least 2"):
        read_plan({"min_replicas": 2})


def test_what_ray_runs_in_folders_of_its_own_is_given_whole_paths() -> None:
    settings = Settings(_env_file=None, keys_file=Path("data/keys.txt"))

    given = cluster._for_any_folder(settings)

    assert given.keys_file == Path.cwd() / "data" / "keys.txt"
    assert given.spool_dir.is_absolute()
    assert given.model_download_root.is_absolute()


# Where it listens ---------------------------------------------------------------------------------


def test_a_serve_that_runs_already_must_listen_as_the_settings_say(tmp_path: Path) -> None:
    plain = http_options(settings_of())
    encrypted = http_options(settings_of(**certificate_files(tmp_path)))

    check_listening(plain, HTTPOptions(**plain))
    check_listening(encrypted, HTTPOptions(**encrypted))
    with pytest.raises(ConfigurationError) as refused:
        check_listening(encrypted, HTTPOptions(**plain | {"port": 8000}))

    assert (
        f"PORT is 8000 there, and 9000 here; TLS_CERTIFICATE is empty there, and {tmp_path}"
        in str(refused.value)
    )
    assert "HOST" not in str(refused.value)


def settings_of(**given: Any) -> Settings:
    return Settings(_env_file=None, host="127.0.0.1", port=9000, **given)


def certificate_files(folder: Path) -> dict[str, Path]:
    """TLS_CERTIFICATE and TLS_KEY, in a folder."""
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    return {"tls_certificate": folder / "server.pem", "tls_key": folder / "server.key"}


def test_proxies_speak_https_with_the_certificate_of_the_settings(tmp_path: Path) -> None:
    options = http_options(settings_of(**certificate_files(tmp_path)))

    assert options == {
        "host": "127.0.0.1",
        "port": 9000,
        "ssl_certfile": str(tmp_path / "server.pem"),
        "ssl_keyfile": str(tmp_path / "server.key"),
    }


def test_proxies_speak_http_unless_there_is_a_certificate() -> None:
    assert http_options(settings_of()) == {"host": "127.0.0.1", "port": 9000}


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    files = certificate_files(tmp_path)
    files["tls_certificate"].write_text("no certificate")

    with pytest.raises(ConfigurationError, match="cannot be used for HTTPS"):
        http_options(settings_of(**files))


def test_what_proxies_cannot_do_is_refused(tmp_path: Path) -> None:
    password = {"tls_key_password_file": tmp_path / "password", **certificate_files(tmp_path)}

    with pytest.raises(ConfigurationError, match="UNIX_SOCKET=asr"):
        http_options(settings_of(unix_socket=Path("asr.sock")))
    with pytest.raises(ConfigurationError, match="TLS_KEY_PASSWORD_FILE is set"):
        http_options(settings_of(**password))


@pytest.mark.parametrize("variable", ["TLS_CERTIFICATE", "UNIX_SOCKET"])
def test_a_deployment_listens_as_its_file_says_and_refuses_settings_that_would_not_count(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "some.file")

    with pytest.raises(ConfigurationError, match="http_options of serve"):
        build_application({})


@pytest.mark.parametrize("error", [Overloaded("Full.", retry_after=7), EmptyMedia("Empty.")])
def test_an_error_travels_whole(error: AsrError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301  (as Ray does)

    assert type(arrived) is type(error)
    assert (arrived.detail, arrived.retry_after) == (error.detail, error.retry_after)


# Scaling ------------------------------------------------------------------------------------------


def test_replicas_follow_the_audio_that_waits() -> None:
    wanted = replicas_wanted(6000, num_running=4, num_queued=0, seconds_per_replica=600)

    assert wanted == 10


def test_a_request_in_the_queue_counts_as_long_as_those_that_run() -> None:
    wanted = replicas_wanted(1200, num_running=2, num_queued=3, seconds_per_replica=600)

    assert wanted == 5


def test_without_work_one_replica_is_wanted() -> None:
    assert replicas_wanted(0, num_running=0, num_queued=0, seconds_per_replica=600) == 1


def test_the_policy_sums_up_the_replicas_and_stays_within_the_plan() -> None:
    context = SimpleNamespace(
        aggregated_metrics={cluster.BACKLOG_METRIC: {"one": 900.0, "two": 2700.0}},
        total_running_requests=4,
        total_queued_requests=0,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
    )

    assert AudioPolicy(1000)(context) == (4, {})
    assert AudioPolicy(1800)(context) == (2, {})


def test_a_backlog_shrinks_as_audio_is_recognised() -> None:
    backlog = Backlog()
    first, second = object(), object()

    backlog.begin(first)
    backlog.begin(second)
    backlog.note(first, Progress(100, 600))
    assert backlog.seconds == 500 + cluster.UNKNOWN_SECONDS
    backlog.end(first)
    backlog.end(second)

    assert backlog.seconds == 0


# The transcriber behind a handle ------------------------------------------------------------------


@dataclass
class Stream:
    """Stands in for a stream of a replica's answers."""

    answers: list[object]
    is_endless: bool = False
    is_cancelled: bool = False

    async def __aiter__(self) -> AsyncGenerator[object, None]:
        for answer in self.answers:
            if isinstance(answer, AsrError) or not isinstance(answer, Exception):
                yield answer
            else:
                raise answer
        if self.is_endless:
            await asyncio.Event().wait()

    def cancel(self) -> None:
        self.is_cancelled = True


def transcriber_of(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> RemoteTranscriber:
    monkeypatch.setattr(cluster, "_put", lambda _: None)
    events = SimpleNamespace(remote=lambda *_, **__: stream)
    handle = SimpleNamespace(options=lambda **_: SimpleNamespace(events=events))
    return RemoteTranscriber(handle, "turbo")


FAULTS: list[tuple[Exception, type[AsrError]]] = [
    (serve_errors.BackPressureError(5, 4), Overloaded),
    (ray_errors.ActorDiedError(), Unavailable),
    (ray_errors.ObjectStoreFullError(), StorageFull),
    (ray_errors.OutOfDiskError(), StorageFull),
    (TimeoutError(), Unavailable),
]


@pytest.mark.parametrize(
    ("fault", "kind"), FAULTS, ids=[type(fault).__name__ for fault, _ in FAULTS]
)
def test_a_fault_of_the_cluster_is_an_error_to_retry(
    fault: Exception, kind: type[AsrError], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = transcriber_of(Stream([Progress(0, 3), fault]), monkeypatch)

    with pytest.raises(kind):
        asyncio.run(transcriber.transcribe(Path("clip.wav"), TranscribeOptions()))


def test_an_error_of_the_replica_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = transcriber_of(Stream([EmptyMedia("The file is empty.")]), monkeypatch)

    with pytest.raises(EmptyMedia, match="The file is empty"):
        asyncio.run(transcriber.transcribe(Path("clip.wav"), TranscribeOptions()))


def test_a_caller_who_leaves_has_the_replica_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream([Progress(0, 3), Progress(1, 3)])
    events = transcriber_of(stream, monkeypatch).events(Path("clip.wav"), TranscribeOptions())

    async def leave() -> None:
        await anext(events)
        await events.aclose()

    asyncio.run(leave())

    assert stream.is_cancelled


# One recording, several replicas ------------------------------------------------------------------

CHUNKS = [Span(30.0 * number, 30.0 * number + 25.0) for number in range(8)]
HALVES = Division((CHUNKS[:4], CHUNKS[4:]), "en")
IN_CHUNKS = TranscribeOptions.model_validate({"chunking_strategy": "auto"})


def part_of(text: str) -> Done:
    return Done(Transcript(text, (), "en", 240.0, "base"))


@dataclass
class Replicas:
    """Stands in for the handle: each call is answered by the next of `streams`."""

    streams: list[Stream]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def options(self, *, stream: bool) -> Replicas:
        assert stream
        return self

    @property
    def events(self) -> Replicas:
        return self

    def remote(self, *arguments: Any, **named: Any) -> Stream:
        self.calls.append((arguments, named))
        return self.streams[len(self.calls) - 1]


def dividing(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> RemoteTranscriber:
    """The transcriber of a cluster of two."""
    monkeypatch.setattr(cluster, "_put", lambda _: None)
    transcriber = RemoteTranscriber(replicas, "turbo", max_parts=8)
    transcriber._num_replicas = 2  # As its watcher would.
    return transcriber


def test_each_replica_is_given_its_chunks_and_the_language_that_the_first_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replicas = Replicas([Stream([HALVES, part_of(" one")]), Stream([part_of(" two")])])

    transcript = asyncio.run(
        dividing(replicas, monkeypatch).transcribe(Path("clip.wav"), IN_CHUNKS)
    )

    (first, first_named), (second, second_named) = replicas.calls
    assert transcript.text == " one two"
    assert first_named == {"num_parts": 2}
    assert first[1].language is None
    assert second_named == {"num_parts": 2, "chunks": CHUNKS[4:]}
    assert second[1].language == "en"


@pytest.mark.parametrize("options", [TranscribeOptions(), IN_CHUNKS])
def test_what_is_not_divided_is_told_as_it_comes(
    options: TranscribeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Division((CHUNKS,), "en")
    answers = [whole] if options is IN_CHUNKS else []
    replicas = Replicas([Stream([*answers, part_of(" all")])])

    transcript = asyncio.run(dividing(replicas, monkeypatch).transcribe(Path("clip.wav"), options))

    assert transcript.text == " all"
    assert len(replicas.calls) == 1


@pytest.mark.parametrize("error", [EmptyMedia("Empty."), ray_errors.ActorDiedError()])
def test_an_error_of_one_part_ends_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = Replicas([Stream([HALVES], is_endless=True), Stream([Progress(0, 240), error])])
    expected = EmptyMedia if isinstance(error, EmptyMedia) else Unavailable

    with pytest.raises(expected):
        asyncio.run(dividing(replicas, monkeypatch).transcribe(Path("clip.wav"), IN_CHUNKS))

    assert [stream.is_cancelled for stream in replicas.streams] == [True, True]


def test_a_caller_who_leaves_has_every_replica_told(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [Stream([HALVES, Progress(0, 240)], is_endless=True), Stream([], is_endless=True)]
    events = dividing(Replicas(streams), monkeypatch).events(Path("clip.wav"), IN_CHUNKS)

    async def leave() -> None:
        await anext(events)
        await events.aclose()

    asyncio.run(leave())

    assert [stream.is_cancelled for stream in streams] == [True, True]


# A real cluster -----------------------------------------------------------------------------------


@dataclass
class Cluster:
    """`simple-asr serve --cluster` as a process, and its log so far."""

    process: subprocess.Popen[str]
    address: str
    key: str = ""
    log: list[str] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.grown:
                self.log.append(line)
                self.grown.notify_all()

    def wait_for(self, text: str, since: int = 0) -> None:
        """Until the log, from its line `since`, has this text."""
        with self.grown:
            found = self.grown.wait_for(
                lambda: any(text in line for line in self.log[since:]), timeout=WAIT
            )
        assert found, f"{text!r} was never logged:\n{''.join(self.log)}"

    def transcribe(self, clip: Clip, **more: Any) -> httpx.Response:
        return httpx.post(
            f"{self.address}/transcribe",
            headers={"X-API-Key": self.key, **more.pop("headers", {})},
            files={"audio_file": clip.path.read_bytes()},
            params=more.pop("params", {"language": clip.language}),
            timeout=more.pop("timeout", WAIT),
        )

    def callees(self, since: int) -> list[int]:
        """Process ids of the replicas that ended a call, from the log since a line."""
        found = re.findall(r"Speech pid=(\d+)\)[^\n]*CALL events", "".join(self.log[since:]))
        return [int(pid) for pid in found]

    def wait_for_calls(self, num_calls: int, since: int) -> None:
        with self.grown:
            found = self.grown.wait_for(lambda: len(self.callees(since)) >= num_calls, timeout=WAIT)
        assert found, f"{num_calls} calls were never logged:\n{''.join(self.log)}"

    def replicas(self) -> list[int]:
        """Process ids of the speech replicas, from their log lines."""
        found = re.findall(r"Speech pid=(\d+)\)[^\n]*is ready on", "".join(self.log))
        return sorted({int(pid) for pid in found})


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "simple_asr", "serve", "--cluster", "--min-replicas", "2"],
        cwd=folder,
        env={
            **os.environ,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DEFAULT_MODEL": str(base_model),
            "MODEL_DEVICE": "cpu",
            # Else the log says a line of several processes once.
            "RAY_DEDUP_LOGS": "0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Cluster(process, f"http://127.0.0.1:{port}")
    reader = threading.Thread(target=running.read_log, daemon=True)
    reader.start()
    try:
        running.wait_for("Listening on")
        running.key = (folder / "data" / "keys.txt").read_text().split()[-1]
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT)
        reader.join(WAIT)


@pytest.fixture
def clip(speech: list[Clip]) -> Clip:
    return next(clip for clip in speech if clip.language == "en")


@pytest.mark.weights
def test_the_api_is_that_of_one_machine(two_replicas: Cluster, clip: Clip) -> None:
    health = httpx.get(f"{two_replicas.address}/health", timeout=WAIT)
    answer = two_replicas.transcribe(clip)
    empty = httpx.post(
        f"{two_replicas.address}/transcribe",
        headers={"X-API-Key": two_replicas.key},
        files={"audio_file": b""},
        timeout=WAIT,
    )
    stranger = httpx.post(f"{two_replicas.address}/transcribe", timeout=WAIT)

    assert health.json()["status"] == "healthy"
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].strip()
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert empty.json()["code"] == "empty_file"
    assert stranger.status_code == 401


@pytest.mark.weights
def test_replicas_keep_to_one_arena_before_they_have_threads(two_replicas: Cluster) -> None:
    environments = [Path(f"/proc/{replica}/environ") for replica in two_replicas.replicas()]

    assert len(environments) == 2
    for environment in environments:
        assert b"\0MALLOC_ARENA_MAX=1\0" in b"\0" + environment.read_bytes()


@pytest.mark.weights
def test_a_hangup_ends_nothing(two_replicas: Cluster) -> None:
    since = len(two_replicas.log)

    two_replicas.process.send_signal(signal.SIGHUP)

    two_replicas.wait_for("SIGHUP changes nothing", since)
    assert two_replicas.process.poll() is None


@pytest.mark.weights
def test_events_come_through_the_handle(two_replicas: Cluster, clip: Clip) -> None:
    answer = two_replicas.transcribe(clip, headers={"Accept": "text/event-stream"})

    events = re.findall(r"^event: (\w+)$", answer.text, flags=re.MULTILINE)
    assert events[0] == "progress"
    assert events[-1] == "done"


@pytest.mark.weights
def test_chunks_of_one_recording_are_recognised_by_all_replicas_as_by_one(
    two_replicas: Cluster, base_model: Path, decoder: DecoderPool, shared: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    _write_opening(decoder, shared / "data" / "audio" / "en" / "long_en_dev.mp3", 160, path)
    # Warmer, it would be chance what is written.
    options = {"chunking_strategy": "auto", "word_timestamps": "true", "temperature": "0"}
    settings = Settings(
        _env_file=None, default_model=str(base_model), model_device="cpu", spool_dir=tmp_path
    )
    alone = _told_by_one(path, TranscribeOptions.model_validate(options), settings)
    since = len(two_replicas.log)

    answer = two_replicas.transcribe(Clip(path, "", ""), params={**options, "receipt": "true"})

    two_replicas.wait_for_calls(2, since)
    assert sorted(two_replicas.callees(since)) == two_replicas.replicas()
    expected = json.loads(FORMATS["json"].write(alone, WritingOptions(receipt=True)))
    assert recognised(answer.json()) == recognised(expected)


def recognised(answer: dict[str, Any]) -> dict[str, Any]:
    """All but how long it took, and what the door was asked for."""
    told = {name: value for name, value in answer.items() if name != "processing"}
    return told | {"parameters": told["parameters"]["language"]}


def _write_opening(decoder: DecoderPool, media: Path, seconds: int, to: Path) -> None:
    """The first `seconds` of a recording, as WAV."""
    with decoder.decode(media) as recording, wave.open(str(to), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(SAMPLE_RATE)
        samples = recording.read(0, seconds * SAMPLE_RATE)
        written.writeframes((samples * 32_767).astype("<i2").tobytes())


def _told_by_one(media: Path, options: TranscribeOptions, settings: Settings) -> Transcript:
    """What this process says, as a server of one machine would."""
    transcriber = build_transcriber(settings)
    transcriber.start()
    transcriber.wait_until_loaded()
    try:
        return asyncio.run(transcriber.transcribe(media, options))
    finally:
        transcriber.close()


@pytest.mark.weights
def test_a_caller_who_leaves_frees_the_replica(two_replicas: Cluster, clip: Clip) -> None:
    since = len(two_replicas.log)

    with pytest.raises(httpx.ReadTimeout):
        two_replicas.transcribe(clip, timeout=httpx.Timeout(WAIT, read=0.2))

    two_replicas.wait_for("CALL events CANCELLED", since)


@pytest.mark.weights
def test_a_replica_that_dies_costs_only_its_own_requests(two_replicas: Cluster, clip: Clip) -> None:
    since = len(two_replicas.log)
    victim = two_replicas.replicas()[0]

    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(two_replicas.transcribe, clip) for _ in range(8)]
        os.kill(victim, signal.SIGKILL)
        answers = [answer.result() for answer in asked]
    retried = two_replicas.transcribe(clip)

    failed = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in failed} <= {503}
    assert all("retry-after" in answer.headers for answer in failed)
    assert len(failed) < len(answers)
    assert retried.status_code == 200
    two_replicas.wait_for("is ready on", since)


@pytest.mark.weights
def test_a_stop_lets_requests_finish(two_replicas: Cluster, clip: Clip) -> None:
    """The last test: nothing serves after it."""
    with httpx.stream(
        "POST",
        f"{two_replicas.address}/transcribe",
        headers={"X-API-Key": two_replicas.key, "Accept": "text/event-stream"},
        files={"audio_file": clip.path.read_bytes()},
        timeout=WAIT,
    ) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        two_replicas.process.send_signal(signal.SIGTERM)
        rest = list(lines)

    assert first == "event: progress"
    assert "event: done" in rest
    assert two_replicas.process.wait(WAIT) == 0
