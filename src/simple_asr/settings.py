"""Every setting, from the environment or `.env`; the only reader of either.

The environment wins over `.env`. `docs/settings.md` and `.env.example` list the same rows, and a
test compares all three.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from simple_asr.errors import ConfigurationError
from simple_asr.service.peers import Proxies


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["text", "json"]
Device = Literal["cuda", "cpu", "auto"]
ComputeType = Literal[
    "auto", "int8", "int8_float16", "int8_float32", "float16", "bfloat16", "float32"
]


class Settings(BaseSettings):
    """One field per variable: `PORT` is `port`. Build it with `load_settings`."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # What the specification names.
    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104
    port: int = Field(9854, ge=1, le=65535, description="Port to listen on.")
    default_model: str = Field(
        "turbo",
        min_length=1,
        description="Model to serve: a name (`tiny`, `base`, `small`, `medium`, `large`, `turbo`, "
        "`tiny.en`, …), `owner/name` on the hub, or a folder.",
    )
    model_device: Annotated[Device, BeforeValidator(_lower)] = Field(
        "cuda",
        description="`cuda` (NVIDIA or AMD; CPU with a warning where there is no GPU), `cpu`, or "
        "`auto` (a GPU if there is one, without a warning).",
    )
    model_download_root: Path = Field(Path("models"), description="Folder that keeps models.")
    keys_file: Path = Field(Path("data/keys.txt"), description="File of API keys, one per line.")
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        "info", description="`debug`, `info`, `warning`, `error` or `critical`."
    )
    hsa_override_gfx_version: str = Field(
        "10.3.0",
        pattern=r"^(\d+\.\d+\.\d+)?$",
        description="GPU version AMD's ROCm runtime is told. Read by ROCm alone; empty: its own.",
    )
    audio_speedup: float = Field(
        1.25,
        ge=1,
        le=2,
        allow_inf_nan=False,
        description="How much faster than recorded long audio is fed to the model, 1 to 2; used "
        "only where it saves a window.",
    )

    # What this server adds.
    unix_socket: Path | None = Field(
        None,
        description="Socket file to listen on in the place of `HOST` and `PORT`. One that a server "
        "has left there is replaced.",
    )
    unix_socket_mode: str = Field(
        "660", pattern=r"^0?[0-7]{3}$", description="Who may use that file, as `chmod` has it."
    )
    tls_certificate: Path | None = Field(
        None,
        description="Certificate for HTTPS with those between it and its root, a PEM file. Empty: "
        "plain HTTP.",
    )
    tls_key: Path | None = Field(
        None, description="Its private key, a PEM file. Empty: it stands in the certificate's file."
    )
    tls_key_password_file: Path | None = Field(
        None, description="File of the password of an encrypted key."
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[\w.~-]+)*$",
        description="Path under which a proxy shows the server, such as `/speech`, whether or not "
        "the proxy takes it off.",
    )
    cors_origins: str = Field(
        "",
        description="Origins of web pages elsewhere that may call the server from a browser, by "
        "commas, such as `https://example.org`; `*` for all. Empty: none.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1,unix",
        description="Addresses and networks of proxies, by commas, whose word is taken for who "
        "calls (`X-Forwarded-For`); `unix` for what comes by `UNIX_SOCKET`.",
    )
    max_connections_per_address: int = Field(
        256,
        ge=0,
        description="Connections that an address may have open at once, and requests in work where "
        "a proxy forwards them; one more is answered 429. 0: any number.",
    )
    fallback_model: str = Field(
        "base",
        description="Model served, with `degraded` health, when `DEFAULT_MODEL` cannot be had. "
        "Empty: refuse to start instead.",
    )
    model_aliases: str = Field(
        "whisper-1,gpt-transcribe,gpt-4o-transcribe,gpt-4o-mini-transcribe",
        description="Names under which `/v1` serves a model too, by commas: `whisper-1` for the "
        "one that is served, `fast=tiny` for a certain one.",
    )
    model_memory_bytes: int = Field(
        0,
        ge=0,
        description="Most bytes of models in memory at once, by the size of their files. 0: half "
        "of what the machine, or the container, has.",
    )
    model_idle_seconds: float = Field(
        900,
        ge=0,
        allow_inf_nan=False,
        description="A model beside the default one is released after so long without use. 0: only "
        "when its room is needed.",
    )
    admin_keys: str = Field(
        "",
        description="Names of the keys that may load and unload models, by commas. Empty: every "
        "key may.",
    )
    require_gpu: bool = Field(
        False, description="Refuse to start without a GPU instead of using the CPU."
    )
    compute_type: Annotated[ComputeType, BeforeValidator(_lower)] = Field(
        "auto",
        description="Number format of the model: `auto` (int8 on CPU, float16 on GPU), `int8`, "
        "`int8_float16`, `int8_float32`, `float16`, `bfloat16`, `float32`.",
    )
    audio_context: Annotated[Literal["full", "auto"], BeforeValidator(_lower)] = Field(
        "full",
        description="`full`: the model hears 30 s at a time, as openai-whisper does; `auto`: short "
        "windows in a context of their own length. A request's `audio_context` wins.",
    )
    cpu_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads the model uses on a CPU. 0: one per core this process may use.",
    )
    max_batch_size: int = Field(
        0,
        ge=0,
        le=256,
        description="Most windows, of any requests, in one model call. 0: 8 on a CPU, 16 on a GPU.",
    )
    max_waiting_requests: int = Field(
        64, ge=1, le=100_000, description="Requests admitted at once; one more is answered 503."
    )
    max_waiting_audio_seconds: float = Field(
        86_400,
        gt=0,
        allow_inf_nan=False,
        description="Most audio worked on at once, in seconds; a recording beyond it is answered "
        "503, one alone is always taken.",
    )
    min_free_memory_bytes: int = Field(
        134_217_728,
        ge=0,
        description="Available memory, in bytes, below which new transcriptions are answered 503.",
    )
    max_upload_bytes: int = Field(
        1_073_741_824, ge=1, description="Largest request body, in bytes."
    )
    max_form_fields: int = Field(
        64, ge=1, le=10_000, description="Most fields of a form, the file not counted."
    )
    max_field_bytes: int = Field(
        65_536, ge=256, description="Longest text of one form field, in bytes."
    )
    max_document_bytes: int = Field(
        1_048_576, ge=256, description="All JSON of one request together, in bytes."
    )
    body_timeout_seconds: float = Field(
        30,
        gt=0,
        allow_inf_nan=False,
        description="How long a body may fall silent, or lag behind `MIN_UPLOAD_RATE`, before its "
        "sender is given up.",
    )
    min_upload_rate: float = Field(
        1024, ge=0, allow_inf_nan=False, description="Slowest upload, in bytes a second."
    )
    max_headers: int = Field(100, ge=16, le=10_000, description="Most headers of a request.")
    max_header_bytes: int = Field(
        16_384, ge=1024, le=1_048_576, description="Headers and address of a request, in bytes."
    )
    header_timeout_seconds: float = Field(
        10,
        gt=0,
        allow_inf_nan=False,
        description="How long a connection may take to send a request's headers.",
    )
    max_audio_seconds: float = Field(
        14_400, gt=0, allow_inf_nan=False, description="Longest audio of one request, in seconds."
    )
    decoder_processes: int = Field(
        2, ge=1, le=64, description="Child processes that decode media, kept warm."
    )
    decode_timeout_seconds: float = Field(
        300,
        gt=0,
        allow_inf_nan=False,
        description="Wall-clock time decoding one file may take before its process is killed.",
    )
    spool_dir: Path = Field(
        Path("data/spool"), description="Folder for uploads while they are worked on."
    )
    min_free_bytes: int = Field(
        268_435_456,
        ge=0,
        description="Free space of `SPOOL_DIR` and of `JOBS_DIR`, in bytes, below which the server "
        "says it is not ready.",
    )
    jobs_dir: Path = Field(Path("data/jobs"), description="Folder that keeps jobs and their files.")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database that keeps jobs, "
        "`postgresql://user:password@host/database`, for several servers on one store. Empty: a "
        "SQLite file in `JOBS_DIR`.",
    )
    job_files_url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]+(/[\w.-]+)*/?)?$",
        description="Bucket of an S3 store, or a folder in it, that keeps the files of jobs: "
        "`s3://bucket/folder`. Empty: `JOBS_DIR`.",
    )
    aws_endpoint_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address of that store. Empty: Amazon's. Other `AWS_` variables of the "
        "environment count as Amazon's own tools have it.",
    )
    aws_access_key_id: str = Field(
        "", description="Id of the key for that store. Empty: as Amazon's own tools find one."
    )
    aws_secret_access_key: SecretStr | None = Field(
        None, description="Secret that goes with that id."
    )
    aws_session_token: SecretStr | None = Field(
        None, description="Token that goes with both, where they are temporary."
    )
    job_workers: int = Field(
        2, ge=1, le=64, description="Jobs that are worked on at a time by this server."
    )
    max_waiting_jobs: int = Field(
        1000, ge=1, description="Jobs of one key that have not ended; one more is answered 503."
    )
    job_retention_seconds: float = Field(
        604_800,
        gt=0,
        allow_inf_nan=False,
        description="How long the result of a job is kept after its end.",
    )
    job_lease_seconds: float = Field(
        30,
        gt=0,
        allow_inf_nan=False,
        description="How long a server may be silent before its jobs are begun by another, or by "
        "itself when it starts again.",
    )
    audio_urls: bool = Field(
        False, description="Take `audio_url`, the address of a recording, instead of a file."
    )
    download_timeout_seconds: float = Field(
        600,
        gt=0,
        allow_inf_nan=False,
        description="Longest the download of one `audio_url` may take.",
    )
    max_batch_jobs: int = Field(
        100, ge=1, le=1000, description="Most jobs that may be sent together."
    )
    max_batch_bytes: int = Field(
        4_294_967_296,
        ge=1,
        description="Most bytes that the files of one archive may have, unpacked.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Secret that webhooks are signed with, `whsec_` and 24 to 64 random bytes in "
        "base64. Empty: there are none.",
    )
    webhook_url: SecretStr | None = Field(
        None, description="Address that is told of the end of jobs that name no `webhook_url`."
    )
    allowed_addresses: str = Field(
        "",
        description="Networks that this server may connect to for callers though they are not of "
        "the public internet, by commas: `10.1.0.0/16,fd00::/8`.",
    )
    allowed_ports: str = Field(
        "80,443", description="Ports that this server connects to for callers, by commas."
    )
    request_timeout_seconds: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Longest one request may take, its upload included, before it is answered 504. "
        "0: as long as it takes.",
    )
    grace_seconds: float = Field(
        30,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long requests may go on after the signal to stop. Docker and systemd are "
        "told to wait 40 s: tell them more when you raise this.",
    )
    engine_timeout_seconds: float = Field(
        60,
        ge=0,
        allow_inf_nan=False,
        description="How long a model call may take at least before the model is given up and the "
        "server starts anew; more where calls have been measured to be slow. 0: for ever.",
    )
    supervise: bool = Field(
        True,
        description="Keep a parent process that holds the port and starts the server again when "
        "it dies or its model hangs (Linux). False: whoever started it is to do that.",
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long new requests are still taken after the signal to stop, while "
        "`/health/ready` already says 503: as long as your load balancer takes to notice.",
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        "text", description="The log as lines of `text`, or as a `json` object a line."
    )
    max_wrong_keys_per_minute: int = Field(
        0,
        ge=0,
        description="Wrong API keys an address may send in a minute; then it is answered 429. "
        "0: any number.",
    )
    limits_file: Path = Field(
        Path("data/limits.ini"), description="File of what each key may take; it need not exist."
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Whoever sends it as `Authorization: Bearer …` may read `/metrics`. Empty: "
        "nobody.",
    )
    metrics_on_loopback: bool = Field(
        False,
        description="Programs on this machine, by a loopback address or `UNIX_SOCKET`, may read "
        "`/metrics` without a token; a proxy on it that names its client in `X-Forwarded-For` may "
        "not.",
    )
    otel_exporter_otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address of an OpenTelemetry collector, which is sent traces by OTLP over "
        "HTTP. Empty: none. The other `OTEL_` variables of the environment count as its SDK has "
        "it.",
    )
    hf_endpoint: str = Field(
        "https://huggingface.co",
        pattern=r"^https?://\S+$",
        description="Address of the model hub, or of a mirror.",
    )
    hf_token: SecretStr | None = Field(
        None, description="Token for the model hub; needed for private models only."
    )
    hf_hub_offline: bool = Field(False, description="Never ask the hub; use local models only.")
    ray_address: str = Field(
        "",
        description="Address of the Ray cluster that `serve --cluster` joins. Empty: it starts one "
        "on this machine.",
    )

    @property
    def administrators(self) -> frozenset[str]:
        """The names in `admin_keys`."""
        return frozenset(name.strip() for name in self.admin_keys.split(",") if name.strip())

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Those in `cors_origins`."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    @field_validator("root_path", mode="before")
    @classmethod
    def _without_slash(cls, value: object) -> object:
        return value.rstrip("/") if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_write_it(cls, value: str) -> str:
        """A browser compares letter by letter, and an origin that never matches helps nobody."""
        for origin in filter(None, map(str.strip, value.split(","))):
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin: scheme, host and, if not the usual one, port, in "
                    "small letters and without a path, such as https://example.org"
                )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        Proxies(value)
        return value

    @field_validator(
        "hf_token",
        "database_url",
        "aws_secret_access_key",
        "aws_session_token",
        "metrics_token",
        "webhook_secret",
        "webhook_url",
        "unix_socket",
        "tls_certificate",
        "tls_key",
        "tls_key_password_file",
        mode="before",
    )
    @classmethod
    def _nothing(cls, value: object) -> object:
        return None if value == "" else value


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Settings of this process. Raises ConfigurationError naming each variable that is wrong."""
    try:
        return Settings(_env_file=env_file)
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False)
        )
        raise ConfigurationError(
            f"These settings are not valid; correct them in the environment or in .env:\n{faults}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{env_file} is not UTF-8 text. Save it as UTF-8, or remove it."
        ) from None
