"""The same server over several machines, as a Ray Serve application made of our own parts.

Its ingress is `create_app`, and each speech replica holds the transcriber of one machine. To place,
start, watch, scale and route to them is Ray's business (docs/cluster.md).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import exceptions as ray_errors
from ray import serve
from ray.serve import exceptions as serve_errors
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simple_asr.assembly import build_transcriber
from simple_asr.audio.speech import Span
from simple_asr.engine.backends import BATCH_SIZES
from simple_asr.engine.models import shown_name
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import (
    Division,
    FindChunks,
    Part,
    PartMerge,
    divided,
    is_divisible,
    seconds_of,
)
from simple_asr.engine.tuning import MALLOC_ENVIRONMENT
from simple_asr.engine.window import Priority
from simple_asr.errors import (
    AsrError,
    ConfigurationError,
    ModelUnavailable,
    Overloaded,
    StorageFull,
    Unavailable,
)
from simple_asr.server.app import create_app
from simple_asr.server.intake import WRITE_BYTES
from simple_asr.server.listener import url_of
from simple_asr.server.log import configure_logging
from simple_asr.server.tls import TlsFiles, open_tls
from simple_asr.service.keys import KeyStore
from simple_asr.service.models import ListedModel
from simple_asr.service.spool import SpoolFile, sweep
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings, load_settings
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress
from simple_asr.transcript.model import Transcript

logger = logging.getLogger(__name__)

APPLICATION = "simple-asr"
SPEECH = "Speech"
BACKLOG_METRIC = "audio_seconds"
# A place in Ray's books costs nothing, and requests over it would be refused with Ray's own text.
INGRESS_REQUESTS = 10_000
# Options of Ray's proxies, and the settings that we take them from.
LISTENING = {
    "host": "HOST",
    "port": "PORT",
    "ssl_certfile": "TLS_CERTIFICATE",
    "ssl_keyfile": "TLS_KEY",
}
# What one waiting request is taken for while nothing is known of it: one window.
UNKNOWN_SECONDS = 30.0
STATE_SECONDS = 1.0
ANSWER_SECONDS = 30.0


class Plan(BaseModel):
    """How large the cluster is: `args` of serve.yaml, and the options of `serve --cluster`.

    The autoscaler aims at `audio_seconds_per_replica` of audio admitted and not yet recognised.
    A replica that leaves has `grace_seconds` to finish its requests. Chunks of one recording go to
    `max_parts` replicas at most, each of which decodes all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    cpus_per_replica: float = Field(1, gt=0)
    gpus_per_replica: float = Field(0, ge=0)
    ingresses: int = Field(1, ge=1)
    audio_seconds_per_replica: float = Field(600, gt=0)
    grace_seconds: float = Field(600, gt=0)
    max_parts: int = Field(8, ge=1)


# The application ---------------------------------------------------------------------------------


def build_application(args: dict[str, Any]) -> serve.Application:
    """What `serve deploy` imports; the settings are those of the environment it runs in.

    Raises ConfigurationError.
    """
    settings = load_settings()
    if settings.tls_certificate or settings.unix_socket:
        raise ConfigurationError(
            "Where and how a deployed cluster listens, http_options of serve.yaml say: leave "
            "TLS_CERTIFICATE and UNIX_SOCKET empty, and set ssl_certfile and ssl_keyfile there."
        )
    return bind(settings, read_plan(args))


def read_plan(args: dict[str, Any]) -> Plan:
    """Raises ConfigurationError that names what is wrong."""
    try:
        plan = Plan.model_validate(args)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError(f"The cluster's arguments are not valid: {faults}.") from None
    if plan.max_replicas < plan.min_replicas:
        raise ConfigurationError(
            f"At most {plan.max_replicas} replicas and at least {plan.min_replicas} cannot both "
            "be. Raise max_replicas, or lower min_replicas."
        )
    return plan


def http_options(settings: Settings) -> dict[str, object]:
    """Where and how Ray's proxies listen. Raises ConfigurationError for what they cannot do."""
    options: dict[str, object] = {"host": settings.host, "port": settings.port}
    if settings.unix_socket:
        raise ConfigurationError(
            f"UNIX_SOCKET={settings.unix_socket} is set, and a cluster listens on HOST and PORT of "
            "every machine. Leave UNIX_SOCKET empty."
        )
    files = TlsFiles.from_settings(settings)
    if files is None:
        return options
    if files.password_file is not None:
        raise ConfigurationError(
            "TLS_KEY_PASSWORD_FILE is set, and Ray would show the password to whoever may ask the "
            "cluster. Use a key without one, in a file that only the server's user may read."
        )
    open_tls(files)  # Ray would only say that its proxies are unhealthy.
    certificate = files.certificate.absolute()
    key = files.key.absolute() if files.key else certificate
    return {**options, "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


def check_listening(asked: Mapping[str, object], in_force: HTTPOptions) -> None:
    """Raises ConfigurationError where Serve, which ran already, listens otherwise than asked.

    It takes no other options. What is asked for may be HTTPS, or an address that few can reach.
    """
    both = {
        setting: (getattr(in_force, option), asked.get(option))
        for option, setting in LISTENING.items()
    }
    faults = [
        f"{setting} is {there or 'empty'} there, and {here or 'empty'} here"
        for setting, (there, here) in both.items()
        if there != here
    ]
    if faults:
        raise ConfigurationError(
            "Ray Serve runs on this cluster already, and goes on listening as it was started: "
            f"{'; '.join(faults)}. Set that as it is there, or end Serve and all that it serves "
            "with `serve shutdown`, and start again."
        )


def bind(settings: Settings, plan: Plan) -> serve.Application:
    """The ingress and its speech replicas, as Ray Serve is to run them."""
    settings = _for_any_folder(settings)
    device = "cuda" if plan.gpus_per_replica else "cpu"
    batch_size = settings.max_batch_size or BATCH_SIZES[device]
    num_at_work = min(2 * batch_size, settings.max_waiting_requests)
    speech = serve.deployment(
        Speech,
        name=SPEECH,
        # One batch in the model's hands and one being decoded; the others wait where any replica
        # that has a place can take them.
        max_ongoing_requests=num_at_work,
        max_queued_requests=settings.max_waiting_requests,
        ray_actor_options={
            "num_cpus": plan.cpus_per_replica,
            "num_gpus": plan.gpus_per_replica,
            # Ray's threads are there before `tune` is called.
            "runtime_env": {"env_vars": MALLOC_ENVIRONMENT},
        },
        graceful_shutdown_timeout_s=plan.grace_seconds,
        autoscaling_config={
            "min_replicas": plan.min_replicas,
            "max_replicas": plan.max_replicas,
            "policy": {
                "policy_function": AudioPolicy,
                "policy_kwargs": {"seconds_per_replica": plan.audio_seconds_per_replica},
            },
        },
    )
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        num_replicas=plan.ingresses,
        max_ongoing_requests=INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=plan.grace_seconds,
    )
    threads = settings.cpu_threads or max(1, int(plan.cpus_per_replica))
    replicas = speech.bind(settings.model_copy(update={"cpu_threads": threads}))
    return ingress.bind(settings, replicas, plan.max_parts)


def _for_any_folder(settings: Settings) -> Settings:
    """Ray's processes run in folders of their own."""
    names = ("model_download_root", "keys_file", "spool_dir", "jobs_dir")
    return settings.model_copy(update={name: getattr(settings, name).absolute() for name in names})


@contextmanager
def running(settings: Settings, plan: Plan) -> Iterator[None]:
    """The application, served, on the Ray of RAY_ADDRESS or on one started on this machine.

    At its end requests in work are let finish. Raises ConfigurationError, ModelUnavailable.
    """
    listening = http_options(settings)
    # Nothing about those who use this server is told to anyone; Ray's own default is to tell.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(settings.ray_address or "local", include_dashboard=False)
    except ConnectionError as error:
        raise ConfigurationError(
            f"No Ray cluster answers at RAY_ADDRESS={settings.ray_address} ({error}). Start one "
            "with `ray start --head`, give this process its RAY_AUTH_MODE and token, or leave "
            "RAY_ADDRESS empty to have one on this machine."
        ) from None
    try:
        serve.start(proxy_location="EveryNode", http_options=listening)
        # Ray tells what is in force nowhere else, and only logs that it is not what was asked.
        check_listening(listening, _get_global_client().http_config)
        _deploy(bind(settings, plan))
        url = url_of(settings.host, settings.port, is_https=bool(settings.tls_certificate))
        logger.info("Listening on %s of every node", url)
        yield
        serve.delete(APPLICATION)
    finally:
        ray.shutdown()


def _deploy(application: serve.Application) -> None:
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        serve.delete(APPLICATION)
        raise ModelUnavailable(f"The cluster could not be started: {error}") from None


# Speech replicas ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Media:
    """A file in Ray's object store, as bytes (uint8). In a class, so that Ray fetches it late."""

    content: ray.ObjectRef


class Backlog:
    """Audio seconds that a replica has taken on and not recognised yet. Owned by its event loop."""

    def __init__(self) -> None:
        self._left: dict[object, float] = {}

    @property
    def seconds(self) -> float:
        return sum(self._left.values())

    def begin(self, request: object) -> None:
        """A request of which nothing is known yet."""
        self._left[request] = UNKNOWN_SECONDS

    def note(self, request: object, event: Event, seconds: float | None = None) -> None:
        """What is left after an event: of the recording, or of its `seconds` that are done here."""
        if isinstance(event, Progress):
            total = event.seconds_total if seconds is None else seconds
            self._left[request] = total * (1 - event.fraction)

    def end(self, request: object) -> None:
        self._left.pop(request, None)


class Speech:
    """The transcriber of one machine, behind a handle. Errors of ours come as last events."""

    def __init__(self, settings: Settings) -> None:
        """Returns when the model is loaded, so that no request is sent to one that loads.

        Raises ModelUnavailable.
        """
        configure_logging(settings.log_level, settings.log_format)
        self._spool = settings.spool_dir
        self._backlog = Backlog()
        sweep(settings.spool_dir)  # A replica that was killed here left its files.
        self._transcriber = build_transcriber(settings)
        self._transcriber.start()
        state = self._transcriber.wait_until_loaded()
        if state.status != "ready":
            raise ModelUnavailable(state.reason)

    async def events(
        self,
        media: Media,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
        *,
        num_parts: int = 1,
        chunks: Sequence[Span] | None = None,
    ) -> AsyncGenerator[Event | Division | AsrError, None]:
        """As `Transcriber.events`, with the error that it would raise as the last event.

        `num_parts` replicas at most recognise the recording. Where they are several, one is given
        no `chunks`: it finds and divides them, tells the division before anything else, and does
        the first part; the others are given theirs.
        """
        parts: Sequence[Sequence[Span]] = ()
        is_division_told = num_parts == 1 or chunks is not None

        def choose(find: FindChunks) -> Sequence[Span]:
            nonlocal parts
            parts = divided(find(), num_parts) if chunks is None else [chunks]
            return parts[0]

        part = Part(choose, share=1 / num_parts)
        request = object()
        self._backlog.begin(request)
        try:
            async with (
                self._file(media) as file,
                aclosing(
                    self._transcriber.events(file, options, checkpoint, priority, part)
                ) as events,
            ):
                async for event in events:
                    if not is_division_told and isinstance(event, Progress):
                        is_division_told = True
                        yield Division(parts, event.language)
                    self._backlog.note(request, event, seconds_of(parts[0]) if parts else None)
                    yield event
        except AsrError as error:
            yield error
        finally:
            self._backlog.end(request)

    @asynccontextmanager
    async def _file(self, media: Media) -> AsyncIterator[Path]:
        """The media as a file of the spool, for as long as the context lasts."""
        content = await media.content
        file = SpoolFile(self._spool)
        try:
            await asyncio.to_thread(_write, content, file)
            yield file.path
        finally:
            file.remove()

    async def model_state(self) -> ModelState:
        return self._transcriber.model_state

    async def models(self) -> list[ListedModel]:
        return await asyncio.to_thread(self._transcriber.models)

    async def find(self, name: str) -> ListedModel | AsrError:
        return await _answer(self._transcriber.find, name)

    async def load(self, name: str) -> ListedModel | AsrError:
        return await _answer(self._transcriber.load, name)

    async def unload(self, name: str) -> ListedModel | AsrError:
        return await _answer(self._transcriber.unload, name)

    def check_health(self) -> None:
        """Asked by Ray, which replaces a replica that raises."""
        state = self._transcriber.model_state
        if state.status != "ready":
            raise ModelUnavailable(state.reason)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Ray, for AudioPolicy."""
        return {BACKLOG_METRIC: self._backlog.seconds}

    def __del__(self) -> None:
        """Called by Ray once the replica's requests have ended."""
        with suppress(AttributeError):  # The constructor may have failed.
            self._transcriber.close()


def _write(content: NDArray[np.uint8], file: SpoolFile) -> None:
    for start in range(0, len(content), WRITE_BYTES):
        file.write(content[start : start + WRITE_BYTES].tobytes())


async def _answer(ask: Callable[[str], ListedModel], name: str) -> ListedModel | AsrError:
    try:
        return await asyncio.to_thread(ask, name)
    except AsrError as error:
        return error


# Scaling -----------------------------------------------------------------------------------------


class AudioPolicy:
    """As many replicas as the audio that waits calls for."""

    def __init__(self, seconds_per_replica: float) -> None:
        self._seconds_per_replica = seconds_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, for Ray's AutoscalingContext, and nothing to remember."""
        backlogs = (context.aggregated_metrics or {}).get(BACKLOG_METRIC, {}).values()
        wanted = replicas_wanted(
            sum(backlogs),
            num_running=context.total_running_requests,
            num_queued=context.total_queued_requests or 0,
            seconds_per_replica=self._seconds_per_replica,
        )
        bounds = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return max(bounds[0], min(wanted, bounds[1])), {}


def replicas_wanted(
    audio_seconds: float, *, num_running: float, num_queued: float, seconds_per_replica: float
) -> int:
    """Replicas for `audio_seconds` in `num_running` requests, and for as long ones in the queue."""
    mean = audio_seconds / num_running if num_running else UNKNOWN_SECONDS
    return max(1, math.ceil((audio_seconds + num_queued * mean) / seconds_per_replica))


# The ingress -------------------------------------------------------------------------------------


class Ingress:
    """Our HTTP door, as Ray Serve runs it."""

    def __init__(self, settings: Settings, replicas: Any, max_parts: int) -> None:
        """`replicas` is the handle of the Speech deployment. Raises InvalidKeyFile."""
        configure_logging(settings.log_level, settings.log_format)
        self._settings = settings
        self._keys = KeyStore(settings.keys_file)
        self._keys.reload()
        self._transcriber = RemoteTranscriber(
            replicas, shown_name(settings.default_model), max_parts
        )
        self._transcriber.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray, after the constructor."""
        app = create_app(self._settings, self._transcriber, self._keys)
        app.add_middleware(WithoutRequestId)
        return app


class WithoutRequestId:
    """Leaves the answer's X-Request-Id to Ray's proxy, which gave the request its id and says it.

    Twice the header would be read as another id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["X-Request-Id"]
            await send(message)

        await self._app(scope, receive, send_without)


class RemoteTranscriber:
    """The speech replicas, as one transcriber that heeds `options.model`.

    A thread asks Ray every STATE_SECONDS how many there are, and alone sets `_state` and
    `_num_replicas`.
    """

    def __init__(self, replicas: Any, model_name: str, max_parts: int = 1) -> None:
        """`replicas` is a DeploymentHandle; a recording is divided among `max_parts` at most."""
        self._replicas = replicas
        self._max_parts = max_parts
        self._num_replicas = 0
        self._state = ModelState("loading", model_name, model_name, "No replica runs yet.")
        self._watcher = threading.Thread(target=self._watch, name="asr-replicas", daemon=True)
        self._is_closed = threading.Event()

    def start(self) -> None:
        """Begins to look for replicas, and returns at once."""
        self._watcher.start()

    def close(self) -> None:
        """Looks no more."""
        self._is_closed.set()

    @property
    def model_state(self) -> ModelState:
        return self._state

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        transcript = None
        async for event in self.events(media, options):
            if isinstance(event, Done):
                transcript = event.transcript
        assert transcript is not None, "A stream of events ends with Done or an error"
        return transcript

    async def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> AsyncGenerator[Event, None]:
        """One replica's; where it divides the recording, it begins, and others do their parts.

        Chunks and language are found by the first, so that all go by the same.
        """
        num_parts = min(self._num_replicas, self._max_parts) if is_divisible(options) else 1
        merge: PartMerge | None = None
        streams = _Streams(self._replicas.options(stream=True).events)
        try:
            sent = Media(await asyncio.to_thread(_put, media))
            streams.ask(sent, options, checkpoint, priority, num_parts=num_parts)
            async for part, event in streams:
                if isinstance(event, Division):
                    alike = options.model_copy(
                        update={"language": event.language or options.language}
                    )
                    num_parts = len(event.parts)
                    for chunks in event.parts[1:]:
                        streams.ask(sent, alike, None, priority, num_parts=num_parts, chunks=chunks)
                    merge = PartMerge(event) if len(event.parts) > 1 else None
                else:
                    for told in [event] if merge is None else merge.receive(part, event):
                        yield told
        except FAULTS as fault:
            raise as_asr_error(fault) from fault
        finally:
            streams.close()

    def check_room(self) -> None:
        """Ray alone knows, and refuses when a replica is asked for."""

    def models(self) -> list[ListedModel]:
        return cast("list[ListedModel]", self._ask("models"))

    def find(self, name: str) -> ListedModel:
        return cast("ListedModel", self._ask("find", name))

    def load(self, name: str) -> ListedModel:
        """Fetches a model and loads it in one replica; others load it when it is asked of them."""
        return cast("ListedModel", self._ask("load", name))

    def unload(self, name: str) -> ListedModel:
        """Releases a model in one replica; the others release it when it is idle."""
        return cast("ListedModel", self._ask("unload", name))

    def _ask(self, method: str, *arguments: str) -> object:
        """The answer of one replica. Blocks; not for the event loop."""
        try:
            asked = getattr(self._replicas, method).remote(*arguments)
            answer = asked.result(timeout_s=ANSWER_SECONDS)
        except FAULTS as fault:
            raise as_asr_error(fault) from fault
        if isinstance(answer, AsrError):
            raise answer
        return answer

    def _watch(self) -> None:
        while True:
            try:
                self._state = self._state_now()
            except Exception as error:
                logger.warning("The replicas' state cannot be asked: %s", error)
            if self._is_closed.wait(STATE_SECONDS):
                return

    def _state_now(self) -> ModelState:
        self._num_replicas = num_running_replicas()
        if not self._num_replicas:
            return replace(self._state, status="loading", reason="No replica is running.")
        if self._state.status == "ready":
            return self._state
        return cast("ModelState", self._ask("model_state"))


class _Streams:
    """What replicas answer to the calls for one request, as it comes. Owned by the event loop."""

    def __init__(self, method: Any) -> None:
        """`method` of a handle tells Event, Division or AsrError."""
        self._method = method
        self._streams: list[Any] = []
        self._readers: list[asyncio.Task[None]] = []
        self._answers: asyncio.Queue[tuple[int, Event | Division | Exception | None]]
        self._answers = asyncio.Queue()

    def ask(self, *arguments: object, **named: object) -> None:
        """Calls the method once more; answers bear the number of their call, from 0."""
        stream = self._method.remote(*arguments, **named)
        reading = self._read(len(self._streams), stream)
        self._streams.append(stream)
        self._readers.append(asyncio.create_task(reading))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event | Division]]:
        """Answers of all calls, until every call has ended. Raises what ends one before."""
        num_ended = 0
        while num_ended < len(self._streams):
            number, answer = await self._answers.get()
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                num_ended += 1
            else:
                yield number, answer

    def close(self) -> None:
        """Has the replicas told that nobody listens any more."""
        for stream, reader in zip(self._streams, self._readers, strict=True):
            stream.cancel()
            reader.cancel()

    async def _read(self, number: int, stream: Any) -> None:
        """Its answers, then None, or what ended it before."""
        try:
            async for answer in stream:
                self._answers.put_nowait((number, answer))
        except Exception as fault:
            self._answers.put_nowait((number, fault))
        else:
            self._answers.put_nowait((number, None))


def num_running_replicas() -> int:
    """Speech replicas that have loaded their model, as Ray sees it. Blocks."""
    application = serve.status().applications.get(APPLICATION)
    speech = application.deployments.get(SPEECH) if application else None
    return speech.replica_states.get("RUNNING", 0) if speech else 0


def _put(media: Path) -> ray.ObjectRef:
    """The file in the object store; mapped, so that it is copied once, and not to the heap."""
    if not media.stat().st_size:
        return ray.put(np.empty(0, np.uint8))
    return ray.put(np.asarray(np.memmap(media, np.uint8, mode="r")))


def as_asr_error(fault: Exception) -> AsrError:
    """What a caller is told of a fault of the cluster."""
    if isinstance(fault, serve_errors.BackPressureError):
        return Overloaded(
            f"{fault.args[1]} requests are waiting, which is this server's limit. Send the "
            "request again later.",
            retry_after=5,
        )
    if isinstance(fault, (ray_errors.ObjectStoreFullError, ray_errors.OutOfDiskError)):
        return StorageFull(
            "The cluster's object store is full, so the upload could not be handed on. Try again "
            "later, or tell the operator."
        )
    if isinstance(fault, TimeoutError):
        return Unavailable("No machine of the cluster has answered in time. Try again later.")
    return Unavailable(
        "The machine that worked on this request has stopped. Send the request again.",
        retry_after=1,
    )


# Faults of machines, which another try may not meet. Ray's own bugs, and ours, are not among them.
FAULTS = (
    serve_errors.BackPressureError,
    serve_errors.DeploymentUnavailableError,
    serve_errors.ReplicaUnavailableError,
    ray_errors.RayActorError,
    ray_errors.NodeDiedError,
    ray_errors.WorkerCrashedError,
    ray_errors.TaskCancelledError,
    ray_errors.ObjectLostError,
    ray_errors.ObjectStoreFullError,
    ray_errors.OutOfDiskError,
    TimeoutError,
)
