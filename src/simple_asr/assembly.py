"""Builds the parts of a server or a command from its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.engine.backends import BACKENDS, LoadOptions, num_gpus
from simple_asr.engine.backends.base import Backend
from simple_asr.engine.machine import physical_memory
from simple_asr.engine.models import ModelStore, OnDownload, shown_name
from simple_asr.engine.seek_loop import Shortcuts
from simple_asr.engine.tuning import tune
from simple_asr.errors import AddressRefused, ConfigurationError, ModelUnavailable, StorageFull
from simple_asr.service.addresses import AddressRules, read_networks, read_ports
from simple_asr.service.archives import ArchiveLimits
from simple_asr.service.backlog import Backlog
from simple_asr.service.database import DATABASE_FILE, postgresql_url, sqlite_url
from simple_asr.service.decoding import Borrowed
from simple_asr.service.downloads import Downloads
from simple_asr.service.job_files import FolderFiles, JobFiles
from simple_asr.service.job_workers import JobLimits, Jobs, OnWork
from simple_asr.service.metrics import Metrics
from simple_asr.service.models import ModelPool, Models
from simple_asr.service.outgoing import DownloadLimits, Outgoing
from simple_asr.service.transcriber import LoadedModel, LocalTranscriber
from simple_asr.service.usage import Usage
from simple_asr.service.usage_store import UsageStore
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.service.webhooks import read_secret
from simple_asr.settings import Settings

logger = logging.getLogger(__name__)


def build_transcriber(
    settings: Settings, on_download: OnDownload | None = None, metrics: Metrics | None = None
) -> ModelPool:
    """Transcribers that have not begun to load; `start` them. Raises ConfigurationError.

    They report to `metrics`.
    """
    tune()  # not only in `load_model`, which has a thread of its own
    spool = settings.spool_dir
    try:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"The folder SPOOL_DIR={spool} cannot be made ({error.strerror}). "
            "Set SPOOL_DIR to a folder this user may write to."
        ) from error
    decoder = DecoderPool(
        settings.decoder_processes,
        DecodeLimits(
            max_seconds=settings.max_audio_seconds, timeout=settings.decode_timeout_seconds
        ),
        spool,
    )
    metrics = metrics or Metrics()
    metrics.count("asr_decoder_deaths", "Decoder processes that died.", lambda: decoder.num_deaths)
    backlog = Backlog(settings.max_waiting_audio_seconds)

    def transcriber(name: str, load: Callable[[], LoadedModel]) -> LocalTranscriber:
        return LocalTranscriber(
            Borrowed(decoder),
            load,
            model_name=name,
            shortcuts=Shortcuts(settings.audio_speedup, settings.audio_context == "auto"),
            max_batch_size=settings.max_batch_size,
            max_requests=settings.max_waiting_requests,
            num_decoders=settings.decoder_processes,
            backlog=backlog,
            on_call=metrics.model_called,
            on_outcome=metrics.window_ended,
            min_call_timeout=settings.engine_timeout_seconds,
        )

    pool = ModelPool(
        transcriber(shown_name(settings.default_model), lambda: load_model(settings, on_download)),
        lambda name: transcriber(name, lambda: load_named(name, settings)),
        build_model_store(settings).models,
        max_bytes=settings.model_memory_bytes or physical_memory() // 2,
        idle_seconds=settings.model_idle_seconds,
        max_requests=settings.max_waiting_requests,
        seconds_to_next_end=backlog.seconds_to_next_end,
        on_close=decoder.close,
    )
    metrics.queue = lambda: pool.queue
    return pool


def build_outgoing(settings: Settings) -> Outgoing:
    """What connects for callers. Raises ConfigurationError."""
    ports, networks = read_ports(settings.allowed_ports), read_networks(settings.allowed_addresses)
    return Outgoing(AddressRules(ports, networks))


def build_downloads(settings: Settings, outgoing: Outgoing) -> Downloads:
    """What `audio_url` names, by way of `outgoing`."""
    limits = DownloadLimits(
        max_bytes=settings.max_upload_bytes,
        timeout=settings.download_timeout_seconds,
        idle_seconds=settings.body_timeout_seconds,
    )
    return Downloads(outgoing, limits, is_enabled=settings.audio_urls)


def build_webhooks(settings: Settings, outgoing: Outgoing) -> WebhookSender:
    """What tells of the ends of jobs, by way of `outgoing`. Raises ConfigurationError."""
    secret, url = settings.webhook_secret, settings.webhook_url
    try:
        if url is not None:
            outgoing.rules.checked_url(url.get_secret_value())
    except AddressRefused as error:
        raise ConfigurationError(f"WEBHOOK_URL: {error.detail}") from None
    if url is not None and secret is None:
        raise ConfigurationError(
            "WEBHOOK_URL is set, and WEBHOOK_SECRET is not, by which receivers know us. "
            "Make one with: echo whsec_$(openssl rand -base64 32)"
        )
    return WebhookSender(
        outgoing,
        read_secret(secret.get_secret_value()) if secret else None,
        url.get_secret_value() if url else None,
        settings.root_path,
    )


def database_url(settings: Settings) -> str:
    """The address of the database: PostgreSQL's, or that of a file in the folder of the jobs.

    Raises ConfigurationError.
    """
    if settings.database_url is None:
        return sqlite_url(settings.jobs_dir / DATABASE_FILE)
    return postgresql_url(settings.database_url.get_secret_value())


def build_usage(settings: Settings) -> Usage:
    """What keys use; its store is not open."""
    return Usage(lambda: UsageStore(database_url(settings)))


def build_jobs(
    settings: Settings,
    transcriber: Models,
    *,
    downloads: Downloads,
    webhooks: WebhookSender,
    on_work: OnWork,
) -> Jobs:
    """Jobs that nobody works on yet, and whose store is not open."""
    return Jobs(
        transcriber,
        settings.jobs_dir,
        database_url(settings),
        JobLimits(
            num_workers=settings.job_workers,
            lease_seconds=settings.job_lease_seconds,
            retention_seconds=settings.job_retention_seconds,
            max_waiting=settings.max_waiting_jobs,
            archives=ArchiveLimits(
                settings.max_batch_jobs, settings.max_upload_bytes, settings.max_batch_bytes
            ),
        ),
        downloads=downloads,
        webhooks=webhooks,
        on_work=on_work,
        open_files=lambda folder: open_job_files(settings, folder),
    )


def open_job_files(settings: Settings, folder: Path) -> JobFiles:
    """Where the files of jobs are: in the folder, or in the S3 store of a setting.

    Raises ConfigurationError.
    """
    if not settings.job_files_url:
        return FolderFiles(folder)
    try:
        from simple_asr.service.s3_files import S3Files, S3Place  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "JOB_FILES_URL is set, and what speaks S3 is not installed. Install it: "
            "sh scripts/setup.sh s3, or pip install 'simple-asr-server[s3]'."
        ) from error
    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    place = S3Place(
        settings.job_files_url,
        endpoint=settings.aws_endpoint_url or None,
        access_key=settings.aws_access_key_id or None,
        secret_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
    )
    return S3Files(place, folder)


def build_model_store(settings: Settings) -> ModelStore:
    """The folder of models, and the hub they come from."""
    token = settings.hf_token
    return ModelStore(
        settings.model_download_root,
        endpoint=settings.hf_endpoint,
        token=token.get_secret_value() if token else None,
        offline=settings.hf_hub_offline,
    )


def load_model(settings: Settings, on_download: OnDownload | None = None) -> LoadedModel:
    """The model asked for on the device asked for, or what takes the place of either.

    Raises ModelUnavailable when neither `DEFAULT_MODEL` nor `FALLBACK_MODEL` can be had, and
    ConfigurationError when a GPU is required and there is none.
    """
    tuning = tune()
    logger.info("Allocator: %s; instructions: %s", tuning.allocator, tuning.instructions)
    device = choose_device(settings)
    store = build_model_store(settings)
    wanted, fallback = settings.default_model, settings.fallback_model
    try:
        return LoadedModel(_load(wanted, store, settings, device, on_download))
    except (ModelUnavailable, StorageFull) as error:
        if not fallback or fallback == wanted:
            raise
        logger.warning("%s Serving FALLBACK_MODEL=%s instead.", error.detail, fallback)
        return LoadedModel(
            _load(fallback, store, settings, device, on_download), reason=error.detail
        )


def load_named(name: str, settings: Settings) -> LoadedModel:
    """A model beside the default one. Raises ModelUnavailable, StorageFull, ConfigurationError."""
    store = build_model_store(settings)
    return LoadedModel(_load(name, store, settings, choose_device(settings), None))


def choose_device(settings: Settings) -> str:
    """`cuda` or `cpu`: the GPU where one is wanted and there is one.

    `cuda` without a GPU means the CPU, with a warning. Raises ConfigurationError when
    `REQUIRE_GPU` forbids that.
    """
    if settings.model_device == "cpu":
        return "cpu"
    if _num_usable_gpus() > 0:
        return "cuda"
    if settings.require_gpu:
        raise ConfigurationError(
            "No GPU can be used, and REQUIRE_GPU is set. Check the driver with "
            "`simple-asr doctor`, or set REQUIRE_GPU=false to run on the CPU."
        )
    if settings.model_device == "cuda":
        logger.warning(
            "MODEL_DEVICE=cuda, but no GPU can be used: running on the CPU. "
            "Set MODEL_DEVICE=cpu to say so, or REQUIRE_GPU=true to refuse."
        )
    return "cpu"


def _num_usable_gpus() -> int:
    try:
        return num_gpus()
    except RuntimeError as error:  # a driver that is too old, or gone
        logger.warning("The GPU driver cannot be asked: %s", error)
        return 0


def _load(
    name: str, store: ModelStore, settings: Settings, device: str, on_download: OnDownload | None
) -> Sequence[Backend]:
    files = store.resolve(name, on_download)
    options = LoadOptions(device, settings.compute_type, settings.cpu_threads)
    return BACKENDS["ctranslate2"](shown_name(name), files.folder, options)
