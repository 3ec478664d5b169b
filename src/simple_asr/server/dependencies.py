"""What routes are given: the services behind the door, and the caller whose key was accepted."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from simple_asr.engine.machine import available_memory
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import MissingKey, Overloaded, WrongKey
from simple_asr.server.intake import BodyLimits
from simple_asr.server.middleware import host_of
from simple_asr.server.model_names import read_aliases, resolve
from simple_asr.server.record import record_of
from simple_asr.service.charges import Charges
from simple_asr.service.downloads import Downloads
from simple_asr.service.job_workers import Jobs
from simple_asr.service.keys import Caller, KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.models import Models
from simple_asr.service.peers import caller_of
from simple_asr.service.quotas import Quotas
from simple_asr.service.shared_work import SharedWork
from simple_asr.service.usage import Used
from simple_asr.service.wrong_keys import WrongKeys
from simple_asr.settings import Settings
from simple_asr.transcript.model import Transcript

# Transcripts of /format read and written at a time: hours of words are hundreds of megabytes.
MAX_REWRITING = 2


@dataclass(frozen=True, slots=True)
class WorkKey:
    """What makes two requests the same: who asks, of what bytes (SHA-256), and for what.

    `given` names the options that were given: a default that is given may mean another thing than
    one left out (`TranscribeOptions.keeps_best_failure`).
    """

    key_name: str | None
    media: bytes
    options: TranscribeOptions
    given: frozenset[str]

    @classmethod
    def of(cls, key_name: str | None, media: bytes, options: TranscribeOptions) -> WorkKey:
        """The key of a request."""
        return cls(key_name, media, options, frozenset(options.model_fields_set))


@dataclass(frozen=True, slots=True)
class Services:
    """What `create_app` was given, for the routes. Lives in `app.state.services`.

    `running` are the transcriptions that a client's second try joins, by `WorkKey`;
    `is_stopping` is set once a signal has asked the server to end;
    `rewriting` has a place for each transcript that /format may hold in memory as objects.
    """

    settings: Settings
    transcriber: Models
    keys: KeyStore
    limits: BodyLimits
    jobs: Jobs
    downloads: Downloads
    metrics: Metrics
    quotas: Quotas
    charges: Charges
    wrong_keys: WrongKeys
    running: SharedWork[WorkKey, Transcript] = field(default_factory=SharedWork)
    is_stopping: threading.Event = field(default_factory=threading.Event)
    rewriting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REWRITING))

    def address(self, path: str) -> str:
        """A path of ours as callers reach it, also behind a proxy."""
        return self.settings.root_path + path

    def model_of(self, name: str | None) -> str | None:
        """The model that a name under `/v1` stands for; None is the default one."""
        return resolve(name, read_aliases(self.settings.model_aliases))


async def services_of(request: Request) -> Services:
    """The services of the app that serves this request."""
    services = request.app.state.services
    assert isinstance(services, Services), "create_app puts the services into the app's state"
    return services


TheServices = Annotated[Services, Depends(services_of)]

# For OpenAPI's sake: they describe the two headers, and `_presented_key` reads them.
_api_key_scheme = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
_bearer_scheme = HTTPBearer(scheme_name="Bearer", auto_error=False)


async def known_caller(
    request: Request,
    services: TheServices,
    _key: Annotated[object, Security(_api_key_scheme)] = None,
    _token: Annotated[object, Security(_bearer_scheme)] = None,
) -> Caller:
    """Who asks, before a byte of the body is read. Raises MissingKey, WrongKey, QuotaExceeded."""
    address = caller_of(host_of(request.scope))
    services.wrong_keys.check(address)
    try:
        caller = services.keys.identify(_presented_key(request))
    except WrongKey:
        services.wrong_keys.note(address)
        raise
    record_of(request.scope).key_name = caller.name
    return caller


# For the `dependencies` of a route that refuses strangers.
NEEDS_KEY = Depends(known_caller)


async def admitted_caller(
    request: Request, services: TheServices, caller: Annotated[Caller, NEEDS_KEY]
) -> None:
    """A transcription's place, held until the request ends. Raises QuotaExceeded, Overloaded."""
    floor = services.settings.min_free_memory_bytes
    available = available_memory() if floor else None
    if available is not None and available < floor:
        raise Overloaded("The server is short of memory. Send the request again later.")
    record = record_of(request.scope)
    record.resources.enter_context(services.quotas.admission(caller.name))
    services.charges.request(caller.name)
    record.on_end = lambda: services.charges.to_key(
        caller.name, Used.by_work(record.audio_seconds, record.processing)
    )


async def caller_with_room(services: TheServices, _: Annotated[Caller, NEEDS_KEY]) -> None:
    """Refuses at once whom the model would refuse after the upload. Raises Overloaded, EngineLost.

    A place is taken only then: who sends slowly must not hold one.
    """
    services.transcriber.check_room()


# For a route whose requests all need a place now: none becomes a job, or joins another's work.
# It stands before MAY_TRANSCRIBE, so that who is refused has not used up a request of the key.
NEEDS_ROOM = Depends(caller_with_room)

# For the `dependencies` of a route that transcribes.
MAY_TRANSCRIBE = Depends(admitted_caller)


def _presented_key(request: Request) -> bytes | None:
    """The one key in the headers, as bytes: what a client sends need not be text."""
    keys = {key for key in (_x_api_key_of(request), _bearer_of(request)) if key is not None}
    if len(keys) > 1:
        raise MissingKey(
            "X-API-Key and Authorization carry different API keys, and one is expected. Send one."
        )
    return keys.pop() if keys else None


def _x_api_key_of(request: Request) -> bytes | None:
    return _header(request, b"x-api-key")


def _bearer_of(request: Request) -> bytes | None:
    """Other schemes are not ours: a proxy in front may have its own use for the header."""
    scheme, _, credentials = (_header(request, b"authorization") or b"").partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else None


def _header(request: Request, name: bytes) -> bytes | None:
    values = [value.strip() for header, value in request.headers.raw if header == name]
    if len(values) > 1:
        raise MissingKey(
            f"The header {name.decode('ascii')} came {len(values)} times, and one API key is "
            "expected. Send it once."
        )
    return values[0] if values else None
