"""The checks of `simple-asr doctor`. To add one, add a row to a table at the end.

A check changes nothing on this machine, and takes seconds at most.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import platform
import re
import shutil
import stat
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx2

from simple_asr.assembly import build_model_store, database_url
from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.cli.health import client_of
from simple_asr.cli.temporary import temporary_folder
from simple_asr.engine.backends import num_gpus
from simple_asr.engine.catalogue import find_model
from simple_asr.engine.hub import Hub
from simple_asr.engine.machine import machine_cores, num_cores
from simple_asr.engine.models import KnownModel
from simple_asr.engine.tuning import cpu_flags
from simple_asr.errors import (
    AsrError,
    ConfigurationError,
    InvalidKeyFile,
    ModelUnavailable,
    Unavailable,
)
from simple_asr.server.listener import listen
from simple_asr.server.tls import TlsFiles, fault_of_time, load_tls
from simple_asr.service.database import SILENT_SECONDS, check_database
from simple_asr.service.keys import list_keys
from simple_asr.settings import Settings

# With native code inside, which a machine may be unable to load.
LIBRARIES = ("av", "ctranslate2", "numpy", "onnxruntime", "tokenizers", "pydantic")
HUB_PATIENCE = 3.0
"""Seconds the hub has for an answer."""

# As /proc/cpuinfo has them. CTranslate2 picks its kernels by the first two, oneDNN by all.
X86_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI (256 bits)",
    "avx512_vnni": "VNNI (512 bits)",
    "amx_int8": "AMX",
}

# What drivers show of their GPUs.
NVIDIA_DRIVER = Path("/proc/driver/nvidia")
AMD_DRIVER = Path("/dev/kfd")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look showed. With an `error` the server cannot work; `advice` says what to do."""

    outcome: Literal["ok", "warning", "error"]
    subject: str
    text: str
    advice: str = ""


# The machine ------------------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    yield Finding("ok", "Python", f"{platform.python_version()} on {platform.machine()}")


def check_libraries() -> Iterator[Finding]:
    """Versions, and whether this machine can load them."""
    faults = {name: fault for name in LIBRARIES if (fault := _why_not_loaded(name))}
    for name, fault in faults.items():
        yield Finding(
            "error",
            "Libraries",
            f"{name} cannot be loaded: {fault}",
            "Delete the folder .venv, and start again with ./start_server.sh.",
        )
    loaded = [f"{name} {metadata.version(name)}" for name in LIBRARIES if name not in faults]
    yield Finding("ok", "Libraries", ", ".join(loaded))


def _why_not_loaded(name: str) -> str:
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        return str(error)
    return ""


def check_processor() -> Iterator[Finding]:
    cores = _cores()
    if platform.machine() != "x86_64":
        yield Finding("ok", "Processor", f"{cores}, {platform.machine()}")
        return
    flags = cpu_flags()
    features = ", ".join(name for flag, name in X86_FEATURES.items() if flag in flags)
    if "avx2" in flags:
        yield Finding("ok", "Processor", f"{cores}, {features}")
    else:
        yield Finding(
            "warning",
            "Processor",
            f"{cores}, without AVX2: recognition on it is slow",
            "Use a small model (DEFAULT_MODEL=tiny), a newer processor, or a GPU. In a virtual "
            "machine, let the processor of the host show through.",
        )


def _cores() -> str:
    """Those the server may use; they are told apart from the machine's where these are more."""
    usable, there = num_cores(), machine_cores()
    cores = f"{there} core{'s' if there > 1 else ''}"
    return cores if usable == there else f"{usable} of {cores}"


def check_decoder() -> Iterator[Finding]:
    """Has a second of silence decoded in a child process, as every upload is."""
    began = time.monotonic()
    try:
        with temporary_folder() as folder:
            media = folder / "silence.wav"
            media.write_bytes(_silent_wav())
            with closing(DecoderPool(1, DecodeLimits(), folder)) as pool, pool.decode(media):
                pass
            missing = pool.missing_protections
    except (AsrError, OSError) as error:
        yield Finding(
            "error",
            "Decoder",
            f"no media can be decoded: {error}",
            "LOG_LEVEL=debug ./start_server.sh shows what the decoder processes say.",
        )
    else:
        yield Finding(
            "ok",
            "Decoder",
            f"decodes in a child process, ready after {time.monotonic() - began:.1f} s",
        )
        yield _confinement(missing)


def _confinement(missing: Sequence[str]) -> Finding:
    if not missing:
        return Finding("ok", "Confinement", "decoders can open no file or address, and run nothing")
    return Finding(
        "warning",
        "Confinement",
        f"this system leaves decoders without: {', '.join(missing)}",
        "Linux 5.13 or newer on x86-64 or ARM64 has all of it; a container's own filter of system "
        "calls must let seccomp and Landlock through.",
    )


def _silent_wav() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as stream:
        stream.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        stream.writeframes(bytes(2 * 16_000))
    return content.getvalue()


# The model --------------------------------------------------------------------------------------


def check_device(settings: Settings) -> Iterator[Finding]:
    if settings.model_device == "cpu":
        yield Finding("ok", "Device", "CPU, as MODEL_DEVICE says")
        return
    try:
        found = num_gpus()
        reason, advice = ("", "") if found else _why_no_gpu()
    except RuntimeError as error:
        found, reason, advice = 0, f"CUDA fails: {error}", "Renew the driver of the GPU."
    if found:
        yield Finding("ok", "Device", f"{found} GPU{'s' if found > 1 else ''}")
    elif settings.require_gpu:
        yield Finding("error", "Device", f"REQUIRE_GPU is set, and {reason}", advice)
    elif settings.model_device == "auto":
        yield Finding("ok", "Device", f"CPU, since {reason}")
    else:
        yield Finding(
            "warning",
            "Device",
            f"CPU, since {reason}",
            f"{advice} If the CPU is meant, set MODEL_DEVICE=cpu.",
        )


def _why_no_gpu() -> tuple[str, str]:
    """What is missing, and what to do."""
    if NVIDIA_DRIVER.exists():
        return (
            "the NVIDIA driver is here, but CUDA finds no GPU it can use",
            "See whether `nvidia-smi` lists one. In a container, give it one (--gpus all).",
        )
    if AMD_DRIVER.exists():
        return (
            "there is an AMD GPU, but CTranslate2 finds none it can use",
            "Use docker compose --profile amd: the native start installs CTranslate2 for NVIDIA.",
        )
    return (
        "no driver of an NVIDIA or AMD GPU is to be seen",
        "Install the driver. In a container, give it the GPU (--gpus all, or --device /dev/kfd).",
    )


def check_model(settings: Settings) -> Iterator[Finding]:
    """Whether DEFAULT_MODEL is here or can be had, and what is served if not."""
    name = settings.default_model
    reason = _why_not_here(settings, name)
    if not reason:
        yield Finding("ok", "Model", f"{name} is here")
        return
    if repository := _repository(settings, name):
        fault = _why_not_on_the_hub(settings, repository)
        if not fault:
            yield Finding("ok", "Model", f"{name} is on the hub, and is fetched at the first start")
            return
        reason = f"The model {name!r} is not here. {fault}"
    fallback = settings.fallback_model
    if fallback and not _why_not_here(settings, fallback):
        yield Finding(
            "warning", "Model", f"{reason} FALLBACK_MODEL={fallback} is served meanwhile."
        )
    else:
        yield Finding("error", "Model", reason)


def _why_not_here(settings: Settings, name: str) -> str:
    """Empty when the model is on this machine, whole and unaltered."""
    listed = _listed(settings, name)
    if listed is not None and listed.state == "bundled":
        return ""
    offline = settings.model_copy(update={"hf_hub_offline": True})
    try:
        build_model_store(offline).resolve(name)
    except ModelUnavailable as error:
        return error.detail
    return ""


def _repository(settings: Settings, name: str) -> str:
    """Where the hub would have the model; empty when it is no question for the hub."""
    if settings.hf_hub_offline or Path(name).is_dir():
        return ""
    listed = _listed(settings, name)
    if listed is not None:
        return (listed.repository or "") if listed.state == "on the hub" else ""
    return name if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) else ""


def _why_not_on_the_hub(settings: Settings, repository: str) -> str:
    """Empty when the hub has it."""
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    try:
        Hub(settings.hf_endpoint, token, patience=HUB_PATIENCE).open(repository)
    except ModelUnavailable as error:
        return error.detail
    return ""


def _listed(settings: Settings, name: str) -> KnownModel | None:
    known = find_model(name)
    wanted = known.name if known else name
    models = build_model_store(settings).models()
    return next((model for model in models if model.name == wanted), None)


# The files --------------------------------------------------------------------------------------


def check_keys(settings: Settings) -> Iterator[Finding]:
    path = settings.keys_file
    if not path.exists():
        yield from _missing_key_file(path)
        return
    try:
        num_keys = len(list_keys(path))
    except InvalidKeyFile as error:
        yield Finding("error", "Keys", f"{path}: {error.detail}")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if num_keys == 0:
        yield Finding(
            "error", "Keys", f"{path} holds no key", "Add one with `simple-asr keys add`."
        )
    elif mode & stat.S_IRWXO:
        yield Finding(
            "warning",
            "Keys",
            f"{num_keys} in {path}, which every user of this machine may open (mode {mode:03o})",
            f"chmod 600 {path}",
        )
    else:
        yield Finding("ok", "Keys", f"{num_keys} in {path}, mode {mode:03o}")


def _missing_key_file(path: Path) -> Iterator[Finding]:
    if _is_writable(path.parent):
        yield Finding("ok", "Keys", f"{path} is made, with a new key, at the first start")
    else:
        yield Finding(
            "error",
            "Keys",
            f"{path} does not exist, and cannot be made by this user",
            "Make its folder writable, or set KEYS_FILE to a file elsewhere.",
        )


def check_jobs(settings: Settings) -> Iterator[Finding]:
    """Whether there is a place for jobs, and their database answers."""
    yield _folder("Jobs", "JOBS_DIR", settings.jobs_dir, settings.max_upload_bytes)
    if settings.database_url is None:
        return
    try:
        address = check_database(database_url(settings), patience=SILENT_SECONDS)
    except (ConfigurationError, Unavailable) as error:
        yield Finding("error", "Database", error.detail)
    else:
        yield Finding("ok", "Database", f"{address} answers")


def check_folders(settings: Settings) -> Iterator[Finding]:
    """Whether uploads and models can be kept, and whether there is room."""
    listed = _listed(settings, settings.default_model)
    is_here = listed is None or listed.state == "local"
    yield _folder("Spool", "SPOOL_DIR", settings.spool_dir, settings.max_upload_bytes)
    # Models that are here are read, and nothing is written beside them.
    if not (is_here and settings.model_download_root.is_dir()):
        needed = listed.num_bytes if listed else 0
        yield _folder("Models", "MODEL_DOWNLOAD_ROOT", settings.model_download_root, needed)


def _folder(subject: str, variable: str, folder: Path, needed: int) -> Finding:
    """`needed` is in bytes."""
    if not _is_writable(folder):
        return Finding(
            "error",
            subject,
            f"{folder} cannot be written to by this user",
            f"Make it writable for whoever runs the server, or set {variable} to another folder.",
        )
    free = shutil.disk_usage(_nearest_existing(folder)).free
    if free < needed:
        return Finding(
            "warning",
            subject,
            f"{folder} has {free / 1e9:.1f} GB free, and may need {needed / 1e9:.1f} GB",
            f"Free some space, or set {variable} to a folder on another disk.",
        )
    return Finding("ok", subject, f"{folder} is writable, {free / 1e9:.1f} GB free")


def _is_writable(folder: Path) -> bool:
    """Whether files can be made there, once the folder itself is made."""
    nearest = _nearest_existing(folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _nearest_existing(folder: Path) -> Path:
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


# The network ------------------------------------------------------------------------------------


def check_port(settings: Settings) -> Iterator[Finding]:
    if settings.unix_socket is not None:
        yield _socket_file(settings.unix_socket)
        return
    port = settings.port
    try:
        listen(settings.host, port).close()
    except ConfigurationError as error:
        if _is_simple_asr(settings):
            yield Finding("ok", "Port", f"{port}: a Simple ASR server answers there")
        else:
            yield Finding("error", "Port", error.detail)
    else:
        yield Finding("ok", "Port", f"{port} is free")


def _socket_file(path: Path) -> Finding:
    """The server makes the file, and no folder for it."""
    if path.parent.is_dir() and _is_writable(path.parent):
        return Finding("ok", "Port", f"not needed: the server listens on {path}")
    return Finding(
        "error",
        "Port",
        f"the socket file {path} cannot be made by this user",
        "Make its folder, writable for whoever runs the server, or set UNIX_SOCKET to a file "
        "elsewhere.",
    )


def _is_simple_asr(settings: Settings) -> bool:
    try:
        with client_of(settings, timeout=2) as client, client.stream("GET", "/") as answer:
            document = json.loads(next(answer.iter_bytes(10_000), b""))
    except (ConfigurationError, httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    return isinstance(document, dict) and document.get("name") == "Simple ASR"


def check_certificate(settings: Settings) -> Iterator[Finding]:
    try:
        files = TlsFiles.from_settings(settings)
        if files is None:
            return
        fault = fault_of_time(load_tls(files), files.certificate)
    except ConfigurationError as error:
        yield Finding("error", "Certificate", error.detail)
        return
    if fault:
        yield Finding("warning", "Certificate", f"{files.certificate} {fault}", "Renew it.")
    else:
        yield Finding("ok", "Certificate", f"{files.certificate}")


MachineCheck = Callable[[], Iterator[Finding]]
ServerCheck = Callable[[Settings], Iterator[Finding]]

MACHINE_CHECKS: tuple[MachineCheck, ...] = (
    check_python,
    check_libraries,
    check_processor,
    check_decoder,
)
"""Need no settings: they run even when those are wrong."""

SERVER_CHECKS: tuple[ServerCheck, ...] = (
    check_device,
    check_model,
    check_keys,
    check_folders,
    check_jobs,
    check_port,
    check_certificate,
)
"""Of what the server is set up to do."""
