"""What each check of `simple-asr doctor` finds on a good day and on a bad one."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme
from pydantic import SecretStr

from simple_asr.audio.decode import DecoderPool
from simple_asr.cli import checks
from simple_asr.cli.checks import (
    Finding,
    check_certificate,
    check_decoder,
    check_device,
    check_folders,
    check_jobs,
    check_keys,
    check_libraries,
    check_model,
    check_port,
    check_processor,
)
from simple_asr.engine import tuning
from simple_asr.engine.fake_hub import FakeHub
from simple_asr.errors import DecoderUnavailable
from simple_asr.settings import Settings, load_settings
from tests.support import free_port

NAME = "someone/whisper-ct2"
FILES = {
    "config.json": b"{}",
    "model.bin": b"weights",
    "tokenizer.json": b"{}",
    "vocabulary.json": b"[]",
}


def settings(**values: object) -> Settings:
    """The defaults, but for these."""
    return load_settings().model_copy(update=values)


def only(findings: Iterator[Finding]) -> Finding:
    [finding] = findings
    return finding


# The machine ------------------------------------------------------------------------------------


def test_libraries_are_told_with_their_versions() -> None:
    found = only(check_libraries())

    assert found.outcome == "ok"
    assert "ctranslate2 4." in found.text


def test_a_library_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LIBRARIES", ("numpy", "no_such_library"))

    wrong, others = check_libraries()

    assert wrong.outcome == "error"
    assert "no_such_library cannot be loaded" in wrong.text
    assert others.text.startswith("numpy ")


def processor(flags: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """What is found on an x86 processor with these flags."""
    cpu_info = folder / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\nflags\t\t: fpu sse2 {flags}\n")
    monkeypatch.setattr(tuning, "CPU_INFO", cpu_info)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return only(check_processor())


def test_a_processor_is_told_with_what_makes_it_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = processor("avx2 avx512f avx512_vnni", tmp_path, monkeypatch)

    assert found.outcome == "ok"
    assert found.text.endswith("AVX2, AVX-512, VNNI (512 bits)")


@pytest.mark.parametrize(
    ("usable", "there", "told"),
    [(1, 1, "1 core, "), (8, 8, "8 cores, "), (2, 64, "2 of 64 cores, ")],
)
def test_cores_are_told_apart_where_a_container_may_use_only_some(
    usable: int, there: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "num_cores", lambda: usable)
    monkeypatch.setattr(checks, "machine_cores", lambda: there)

    assert processor("avx2", tmp_path, monkeypatch).text.startswith(told)


def test_a_processor_without_avx2_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = processor("avx", tmp_path, monkeypatch)

    assert found.outcome == "warning"
    assert "without AVX2" in found.text


def test_a_decoder_that_works_is_tried() -> None:
    decoder, confinement = check_decoder()

    assert decoder.outcome == "ok"
    # Every system the tests run on is expected to have it; macOS has not.
    assert confinement.outcome == ("ok" if sys.platform == "linux" else "warning")


def test_a_system_without_walls_for_decoders_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "decoder"
    answers = '{"ready": ["seccomp"]}', '{"done": [], "channels": 1}'
    impostor.write_text(f"#!/bin/sh\necho '{answers[0]}' >&0; read -r _; echo '{answers[1]}' >&0")
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))

    _, confinement = check_decoder()

    assert confinement.outcome == "warning"
    assert "without: seccomp" in confinement.text


def test_a_decoder_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DecoderUnavailable("The server cannot decode media at the moment.")

    monkeypatch.setattr(DecoderPool, "decode", fail)

    found = only(check_decoder())

    assert found.outcome == "error"
    assert "cannot decode media" in found.text


# The device -------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a GPU; drivers would be in the folder that this returns."""
    monkeypatch.setattr(checks, "num_gpus", lambda: 0)
    monkeypatch.setattr(checks, "NVIDIA_DRIVER", tmp_path / "nvidia")
    monkeypatch.setattr(checks, "AMD_DRIVER", tmp_path / "kfd")
    return tmp_path


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"model_device": "cpu"}, "ok"),
        ({"model_device": "auto"}, "ok"),
        ({"model_device": "cuda"}, "warning"),
        ({"model_device": "cuda", "require_gpu": True}, "error"),
        ({"model_device": "auto", "require_gpu": True}, "error"),
    ],
)
def test_a_missing_gpu_is_as_bad_as_the_settings_make_it(
    values: dict[str, object], outcome: str
) -> None:
    assert only(check_device(settings(**values))).outcome == outcome


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        ("nvidia", "CUDA finds no GPU"),
        ("kfd", "there is an AMD GPU"),
        ("none", "no driver of an NVIDIA or AMD GPU"),
    ],
)
def test_a_missing_gpu_is_told_with_the_reason(no_gpu: Path, driver: str, reason: str) -> None:
    (no_gpu / driver).touch()

    assert reason in only(check_device(settings())).text


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "num_gpus", lambda: 2)

    assert only(check_device(settings())) == Finding("ok", "Device", "2 GPUs")


def test_a_driver_that_fails_is_a_finding_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(checks, "num_gpus", fail)

    found = only(check_device(settings(require_gpu=True)))

    assert found.outcome == "error"
    assert "CUDA driver version is insufficient" in found.text


# The model --------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.publish(NAME, FILES)
        yield hub


def test_a_model_that_is_installed_needs_no_hub_and_is_not_unpacked(home: Path) -> None:
    assert only(check_model(settings(default_model="base"))).outcome == "ok"
    assert list(home.iterdir()) == []


def test_a_model_on_the_hub_is_fetched_later(hub: FakeHub, home: Path) -> None:
    wanted = settings(default_model=NAME, hf_endpoint=hub.endpoint, hf_hub_offline=False)

    found = only(check_model(wanted))

    assert (found.outcome, found.text) == (
        "ok",
        f"{NAME} is on the hub, and is fetched at the first start",
    )
    assert list(home.iterdir()) == []


def test_a_hub_that_has_no_such_model_is_told(hub: FakeHub) -> None:
    wanted = settings(
        default_model="someone/else",
        fallback_model="",
        hf_endpoint=hub.endpoint,
        hf_hub_offline=False,
    )

    found = only(check_model(wanted))

    assert found.outcome == "error"
    assert "'someone/else'" in found.text


def test_a_hub_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HUB_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"

        found = only(check_model(settings(hf_endpoint=endpoint, hf_hub_offline=False)))

    assert "no answer within 0.1 seconds" in found.text


def test_a_fallback_makes_a_missing_model_a_warning() -> None:
    found = only(check_model(settings(default_model="turbo")))

    assert found.outcome == "warning"
    assert "FALLBACK_MODEL=base is served meanwhile." in found.text


def test_a_missing_model_without_a_fallback_is_an_error() -> None:
    assert only(check_model(settings(fallback_model=""))).outcome == "error"


def test_a_model_that_was_altered_is_told_and_no_question_for_the_hub(
    hub: FakeHub, home: Path
) -> None:
    folder = home / "models" / "small"
    folder.mkdir(parents=True)
    for file, content in FILES.items():
        (folder / file).write_bytes(content)

    wanted = settings(default_model="small", hf_endpoint=hub.endpoint, hf_hub_offline=False)
    found = only(check_model(wanted))

    assert "is not the file it should be" in found.text
    assert hub.asked == []


def test_a_path_to_no_model_is_no_question_for_the_hub(hub: FakeHub) -> None:
    wanted = settings(default_model="./nothing", hf_endpoint=hub.endpoint, hf_hub_offline=False)

    assert "./nothing does not exist" in only(check_model(wanted)).text
    assert hub.asked == []


def test_a_misspelt_model_is_told_with_the_nearest(hub: FakeHub) -> None:
    wanted = settings(default_model="trubo", hf_endpoint=hub.endpoint, hf_hub_offline=False)

    assert "The nearest known name is 'turbo'." in only(check_model(wanted)).text
    assert hub.asked == []


# The files --------------------------------------------------------------------------------------


def key_file(home: Path, content: str, mode: int = 0o600) -> Settings:
    path = home / "keys.txt"
    path.write_text(content)
    path.chmod(mode)
    return settings(keys_file=path)


def test_a_key_file_is_told_with_its_number_of_keys(home: Path) -> None:
    found = only(check_keys(key_file(home, f"{'a1' * 32}\n{'b2' * 32}\n")))

    assert found.outcome == "ok"
    assert found.text.startswith("2 in ")


@pytest.mark.parametrize("content", ["# nothing but this\n", "two words\n", "ключ\n"])
def test_a_key_file_without_a_good_key_is_an_error(home: Path, content: str) -> None:
    assert only(check_keys(key_file(home, content))).outcome == "error"


def test_a_key_file_that_everybody_may_read_is_a_warning(home: Path) -> None:
    found = only(check_keys(key_file(home, "a1" * 32, mode=0o644)))

    assert found.outcome == "warning"
    assert found.advice.startswith("chmod 600 ")


def test_a_missing_key_file_is_no_fault_where_one_can_be_made() -> None:
    assert only(check_keys(settings())).outcome == "ok"


def test_a_key_file_that_cannot_be_made_is_an_error(home: Path) -> None:
    (home / "file").touch()

    assert only(check_keys(settings(keys_file=home / "file" / "keys.txt"))).outcome == "error"


def test_folders_are_told_with_their_free_space(home: Path) -> None:
    found = list(check_folders(settings(default_model="base")))

    assert [(one.subject, one.outcome) for one in found] == [("Spool", "ok"), ("Models", "ok")]
    assert all("GB free" in one.text for one in found)
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(home: Path) -> None:
    (home / "file").touch()

    spool, _ = check_folders(settings(spool_dir=home / "file" / "spool"))

    assert spool.outcome == "error"
    assert "SPOOL_DIR" in spool.advice


def test_a_disk_with_too_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100_000_000))

    _, models = check_folders(settings(default_model="turbo"))

    assert models.outcome == "warning"
    assert "0.1 GB free, and may need 1.6 GB" in models.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_an_error(home: Path) -> None:
    (home / "theirs").mkdir(mode=0o500)

    spool, _ = check_folders(settings(spool_dir=home / "theirs" / "spool"))

    assert spool.outcome == "error"


def test_jobs_in_a_folder_need_no_database_but_the_folder(home: Path) -> None:
    found = only(check_jobs(settings()))

    assert (found.outcome, found.subject) == ("ok", "Jobs")
    assert list(home.iterdir()) == []


def test_a_database_that_answers_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "check_database", lambda *_, **__: "postgresql://db.example/asr")

    _, found = check_jobs(settings(database_url=SecretStr("postgresql://a:b@db.example/asr")))

    assert found == Finding("ok", "Database", "postgresql://db.example/asr answers")


def test_a_database_that_is_down_is_an_error_told_without_its_password() -> None:
    closed_port = free_port()
    address = f"postgresql://asr:hush@127.0.0.1:{closed_port}/asr"

    _, found = check_jobs(settings(database_url=SecretStr(address)))

    assert found == Finding(
        "error",
        "Database",
        f"The database postgresql://127.0.0.1:{closed_port}/asr cannot be used: it cannot be "
        "reached (Connection refused). See that it runs, and that DATABASE_URL is right.",
    )


def test_an_address_of_another_database_is_an_error_and_makes_no_file(home: Path) -> None:
    address = f"sqlite:///{home}/jobs.sqlite3"

    _, found = check_jobs(settings(database_url=SecretStr(address)))

    assert found.outcome == "error"
    assert "DATABASE_URL is not the address of a PostgreSQL database" in found.text
    assert list(home.iterdir()) == []


# The network ------------------------------------------------------------------------------------


@contextmanager
def serving(answer: bytes) -> Iterator[int]:
    """A server that answers so to everything; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_free_port_is_ok() -> None:
    assert only(check_port(settings(host="127.0.0.1", port=free_port()))).outcome == "ok"


def test_a_port_that_somebody_else_listens_on_is_an_error() -> None:
    with serving(b'{"name": "Something else"}') as port:
        found = only(check_port(settings(host="127.0.0.1", port=port)))

    assert found.outcome == "error"
    assert f"port {port}" in found.text


def test_a_port_that_this_server_listens_on_is_ok() -> None:
    with serving(b'{"name": "Simple ASR"}') as port:
        assert only(check_port(settings(host="127.0.0.1", port=port))).outcome == "ok"


def test_an_address_of_another_machine_is_an_error() -> None:
    # An address for documentation, which no machine has (RFC 5737).
    assert only(check_port(settings(host="192.0.2.1"))).outcome == "error"


def test_a_socket_file_needs_a_folder_that_is_there(home: Path) -> None:
    (home / "run").mkdir()

    good = only(check_port(settings(unix_socket=home / "run" / "asr.sock")))
    bad = only(check_port(settings(unix_socket=home / "none" / "asr.sock")))

    assert (good.outcome, bad.outcome) == ("ok", "error")
    assert "UNIX_SOCKET" in bad.advice
    assert not (home / "none").exists()


def certificate(folder: Path, *, expires: datetime | None = None) -> Path:
    """With its key in the same file."""
    path = folder / f"{secrets.token_hex(4)}.pem"
    issued = trustme.CA().issue_cert("asr.example.org", not_after=expires)
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    return path


def test_without_a_certificate_nothing_is_said_of_it() -> None:
    assert list(check_certificate(settings())) == []


def test_a_certificate_that_can_be_served_is_ok(home: Path) -> None:
    path = certificate(home)

    assert only(check_certificate(settings(tls_certificate=path))) == Finding(
        "ok", "Certificate", str(path)
    )


def test_a_certificate_that_has_expired_is_a_warning_and_told_once(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = certificate(home, expires=datetime(2020, 1, 1, tzinfo=timezone.utc))

    found = only(check_certificate(settings(tls_certificate=path)))

    assert (found.outcome, found.text) == ("warning", f"{path} has expired")
    assert caplog.messages == []


def test_a_certificate_with_the_key_of_another_is_an_error(home: Path) -> None:
    wrong = settings(tls_certificate=certificate(home), tls_key=certificate(home))

    found = only(check_certificate(wrong))

    assert found.outcome == "error"
    assert "does not belong to the certificate" in found.text
