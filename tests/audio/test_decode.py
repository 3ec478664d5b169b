"""A file decodes, or it costs nobody but who sent it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simple_asr.audio import decode
from simple_asr.audio.decode import HEAD_SECONDS, DecodeLimits, DecoderPool
from simple_asr.audio.recording import Recording
from simple_asr.errors import (
    AsrError,
    DecoderUnavailable,
    EmptyMedia,
    MediaLimitExceeded,
    ShuttingDown,
    StorageFull,
    UnreadableMedia,
)

if sys.platform != "linux":
    pytest.skip("these tests look at processes through /proc", allow_module_level=True)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def pool(spool: Path) -> Iterator[DecoderPool]:
    """One process, so that a test knows which it has."""
    with contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool:
        yield pool


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tenth of a second of the value 1000."""
    return write_wav(tmp_path / "clip.wav", 1600, 1000)


@pytest.fixture
def hours(tmp_path: Path) -> Path:
    """Three hours of telephone silence: decoding takes long enough to be interrupted."""
    path = write_wav(tmp_path / "hours.wav", 0, 0, rate=8000)
    num_bytes = 3 * 3600 * 8000 * 2
    with path.open("r+b") as file:
        # The header says how much follows; the file itself may be a hole.
        for position, value in ((4, 36 + num_bytes), (40, num_bytes)):
            file.seek(position)
            file.write(value.to_bytes(4, "little"))
        file.truncate(44 + num_bytes)
    return path


def write_wav(path: Path, num_samples: int, value: int, rate: int = 16_000) -> Path:
    """The same value over and over, mono, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.full(num_samples, value, dtype="<i2").tobytes())
    return path


def the_process(pool: DecoderPool) -> int:
    """The id of its only process."""
    (process_id,) = pool.process_ids
    return process_id


def warm_up(pool: DecoderPool, clip: Path) -> int:
    """The id of its only process, which has started."""
    pool.decode(clip).close()
    return the_process(pool)


def wait_for_end(process_id: int) -> None:
    """Returns when the process has ended, at the latest after 30 s."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process_id)
        try:
            ended, _, _ = select.select([descriptor], [], [], 30)
        finally:
            os.close(descriptor)
        assert ended, "the process has outlived its server"


def descriptors(process: int | str = "self") -> set[str]:
    """Numbers of the descriptors a process holds open."""
    return {path.name for path in Path(f"/proc/{process}/fd").iterdir()}


# The way it goes -------------------------------------------------------------------------------


def test_a_file_becomes_a_recording(pool: DecoderPool, clip: Path) -> None:
    with pool.decode(clip) as recording:
        assert recording.num_samples == 1600
        assert recording.duration == 0.1
        assert set(recording.read(0, 1600).tolist()) == {1000 / 32_768}
        assert recording.warnings == ()


def test_a_warning_of_the_decoder_reaches_the_recording(pool: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "cut.au"
    ten_seconds = struct.pack(">4s5I", b".snd", 24, 320_000, 3, 16_000, 1)
    path.write_bytes(ten_seconds + bytes(32_000))

    with pool.decode(path) as recording:
        (warning,) = recording.warnings
        assert warning.startswith("The file says it lasts 10.0 s, and 1.0 s could be decoded")


def test_one_process_serves_file_after_file(pool: DecoderPool, clip: Path) -> None:
    first = warm_up(pool, clip)

    assert warm_up(pool, clip) == first


def test_many_callers_at_once_each_get_their_own_sound(spool: Path, tmp_path: Path) -> None:
    paths = [write_wav(tmp_path / f"{n}.wav", 1000 + n, 100 + n) for n in range(24)]

    def check(pool: DecoderPool, number: int) -> None:
        with pool.decode(paths[number]) as recording:
            assert recording.num_samples == 1000 + number
            assert set(recording.read(0, 1000).tolist()) == {(100 + number) / 32_768}

    with (
        contextlib.closing(DecoderPool(2, DecodeLimits(), spool)) as pool,
        ThreadPoolExecutor(12) as threads,
    ):
        list(threads.map(lambda number: check(pool, number), range(24)))


def test_progress_counts_seconds_of_audio(pool: DecoderPool, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "minutes.wav", 16_000 * 130, 0)
    progress: list[float] = []

    pool.decode(path, progress.append).close()

    assert [round(seconds / 60) for seconds in progress] == [1, 2]


def test_the_head_of_a_long_file_is_had_before_the_rest_is_decoded(
    pool: DecoderPool, hours: Path
) -> None:
    heads: list[Recording] = []
    minutes_by_then: list[int] = []

    def take(head: Recording) -> None:
        heads.append(head)
        minutes_by_then.append(len(progress))

    progress: list[float] = []
    with pool.decode(hours, progress.append, on_head=take) as whole, heads[0] as head:
        assert head.duration == HEAD_SECONDS
        assert (head.read(0, 16_000) == whole.read(0, 16_000)).all()

    assert len(heads) == 1
    assert minutes_by_then[0] < len(progress) / 2


def test_a_file_that_is_no_longer_has_no_head(pool: DecoderPool, clip: Path) -> None:
    heads: list[Recording] = []

    pool.decode(clip, on_head=heads.append).close()

    assert heads == []


# What a file may do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", EmptyMedia), (b"hello", UnreadableMedia), (b"\0" * 9999, UnreadableMedia)],
)
def test_what_the_file_did_wrong_is_the_callers_error(
    pool: DecoderPool, tmp_path: Path, content: bytes, error: type[AsrError]
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)

    with pytest.raises(error):
        pool.decode(path)


def test_an_error_names_the_limit(spool: Path, clip: Path) -> None:
    limits = DecodeLimits(max_seconds=0.05)
    with (
        contextlib.closing(DecoderPool(1, limits, spool)) as pool,
        pytest.raises(MediaLimitExceeded, match=r"longer than 0\.05 s"),
    ):
        pool.decode(clip)


def test_a_crash_costs_the_file_it_happened_on(pool: DecoderPool, clip: Path, hours: Path) -> None:
    with pytest.raises(UnreadableMedia, match=r"failed on this file .SIGSEGV."):
        pool.decode(hours, lambda _seconds: os.kill(the_process(pool), signal.SIGSEGV))

    pool.decode(clip).close()


def test_a_process_killed_from_outside_is_no_fault_of_the_file(
    pool: DecoderPool, clip: Path, hours: Path
) -> None:
    with pytest.raises(DecoderUnavailable, match="Send the file again"):
        pool.decode(hours, lambda _seconds: os.kill(the_process(pool), signal.SIGKILL))

    pool.decode(clip).close()


def test_a_crash_costs_nobody_else(spool: Path, clip: Path, hours: Path) -> None:
    with (
        contextlib.closing(DecoderPool(2, DecodeLimits(), spool)) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        crash = thread.submit(
            pool.decode, hours, lambda _seconds: os.kill(reader_of(hours, pool), signal.SIGSEGV)
        )
        while not crash.done():
            pool.decode(clip).close()

        with pytest.raises(UnreadableMedia):
            crash.result()


def reader_of(path: Path, pool: DecoderPool) -> int:
    """The id of the process that has the file open."""
    for process_id in pool.process_ids:
        for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if descriptor.readlink() == path:
                    return process_id
    raise AssertionError("no process has the file open")


def test_a_process_that_died_idle_goes_unnoticed(pool: DecoderPool, clip: Path) -> None:
    process_id = warm_up(pool, clip)
    os.kill(process_id, signal.SIGKILL)
    wait_for_end(process_id)

    pool.decode(clip).close()


def test_a_process_that_hangs_is_killed_at_the_deadline(spool: Path, clip: Path) -> None:
    with contextlib.closing(DecoderPool(1, DecodeLimits(timeout=0.2), spool)) as pool:
        process_id = warm_up(pool, clip)
        os.kill(process_id, signal.SIGSTOP)

        with pytest.raises(MediaLimitExceeded, match=r"longer than 0\.2 s"):
            pool.decode(clip)
        wait_for_end(process_id)
        pool.decode(clip).close()


def test_the_deadline_ends_a_file_that_keeps_on_coming(
    spool: Path, clip: Path, hours: Path
) -> None:
    with contextlib.closing(DecoderPool(1, DecodeLimits(timeout=0.05), spool)) as pool:
        process_id = warm_up(pool, clip)

        with pytest.raises(MediaLimitExceeded, match=r"longer than 0\.05 s"):
            pool.decode(hours)
        wait_for_end(process_id)


def test_a_caller_who_left_ends_the_decoding(pool: DecoderPool, clip: Path, hours: Path) -> None:
    class Left(Exception):
        pass

    def leave(_seconds: float) -> None:
        raise Left

    process_id = warm_up(pool, clip)
    with pytest.raises(Left):
        pool.decode(hours, leave)

    wait_for_end(process_id)
    pool.decode(clip).close()


@pytest.mark.parametrize(
    "words", ["garbage", '{"samples": "x"}', "[" * 15_000, "endless" * 5000, '{"done": 1}']
)
def test_a_process_that_talks_nonsense_is_not_believed(
    spool: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    (tmp_path / "words").write_text(words + "\n")
    impostor = tmp_path / "impostor"
    impostor.write_text(
        f"#!/bin/sh\necho '{{\"ready\": []}}' >&0\nhead -c 1\ncat {tmp_path}/words >&0\nsleep 60"
    )
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))

    with (
        contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool,
        pytest.raises(UnreadableMedia, match="answered nonsense"),
    ):
        pool.decode(clip)


def test_a_process_reports_errors_about_media_only(
    spool: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "impostor"
    impostor.write_text(
        "#!/bin/sh\necho '{\"ready\": []}' >&0\nhead -c 1\n"
        f'echo \'{{"error": "invalid_api_key", "detail": "{"x" * 5000}"}}\' >&0\nsleep 60'
    )
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))

    with (
        contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool,
        pytest.raises(UnreadableMedia) as caught,
    ):
        pool.decode(clip)

    assert len(caught.value.detail) <= 400


def test_a_system_without_a_protection_is_told_of_once(
    spool: Path,
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    impostor = tmp_path / "impostor"
    impostor.write_text(
        '#!/bin/sh\necho \'{"ready": ["seccomp"]}\' >&0\n'
        'while read -r _; do echo \'{"done": [], "channels": 1}\' >&0; done'
    )
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))

    with contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool:
        pool.decode(clip).close()
        pool.decode(clip).close()
        missing = pool.missing_protections

    assert missing == ("seccomp",)
    assert [record.message for record in caplog.records if "without" in record.message] == [
        "This system leaves decoder processes without: seccomp."
    ]


# What the system may do ------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/false"])
def test_without_a_decoder_the_server_is_unavailable_until_there_is_one(
    spool: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        pool = DecoderPool(1, DecodeLimits(), spool)
        with pytest.raises(DecoderUnavailable):
            pool.decode(clip)
    with contextlib.closing(pool):
        with contextlib.suppress(DecoderUnavailable):
            pool.decode(clip).close()  # Its start may have been tried before the repair.

        pool.decode(clip).close()


def test_a_full_disk_is_told_as_such(
    pool: DecoderPool, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(StorageFull):
            pool.decode(clip)

    pool.decode(clip).close()


def test_a_missing_spool_folder_is_the_servers_fault(tmp_path: Path, clip: Path) -> None:
    with (
        contextlib.closing(DecoderPool(1, DecodeLimits(), tmp_path / "absent")) as pool,
        pytest.raises(DecoderUnavailable),
    ):
        pool.decode(clip)


def test_only_files_are_read(pool: DecoderPool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent"):
        with pytest.raises(UnreadableMedia):
            pool.decode(path)


def test_signals_to_the_whole_group_do_not_stop_a_decoder(pool: DecoderPool, clip: Path) -> None:
    process_id = warm_up(pool, clip)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process_id, ignored)

    assert warm_up(pool, clip) == process_id


def test_closing_frees_callers_under_way_and_in_line(spool: Path, hours: Path) -> None:
    pool = DecoderPool(1, DecodeLimits(), spool)
    under_way = threading.Event()

    def hang(_seconds: float) -> None:
        with contextlib.suppress(ValueError):
            os.kill(the_process(pool), signal.SIGSTOP)
        under_way.set()

    def decode_until_closed() -> str:
        try:
            return f"got {pool.decode(hours, hang)}"
        except ShuttingDown:
            return "shutting down"

    with ThreadPoolExecutor(4) as threads:
        outcomes = [threads.submit(decode_until_closed) for _ in range(4)]
        assert under_way.wait(30)
        pool.close()

        assert [outcome.result(30) for outcome in outcomes] == ["shutting down"] * 4
    with pytest.raises(ShuttingDown):
        pool.decode(hours)


def test_closing_twice_is_harmless(spool: Path) -> None:
    pool = DecoderPool(2, DecodeLimits(), spool)

    pool.close()
    pool.close()

    assert pool.process_ids == ()


# What is left behind ---------------------------------------------------------------------------


def test_nothing_is_left_in_the_spool_and_no_descriptor_stays_open(
    spool: Path, clip: Path, hours: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").write_bytes(b"bad")
    before = descriptors()

    with contextlib.closing(DecoderPool(2, DecodeLimits(), spool)) as pool:
        for _ in range(5):
            with pool.decode(clip):
                assert list(spool.iterdir()) == []
            with pytest.raises(UnreadableMedia):
                pool.decode(tmp_path / "bad")
        with pytest.raises(UnreadableMedia):
            pool.decode(hours, lambda _: os.kill(reader_of(hours, pool), signal.SIGSEGV))
        pool.decode(clip).close()

    assert list(spool.iterdir()) == []
    assert descriptors() == before


def test_a_process_keeps_no_descriptor_of_a_file(pool: DecoderPool, clip: Path) -> None:
    process_id = warm_up(pool, clip)
    before = descriptors(process_id)
    for _ in range(5):
        warm_up(pool, clip)

    assert descriptors(process_id) == before


def test_a_process_is_replaced_after_its_share_of_files(
    pool: DecoderPool, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_FILES_PER_PROCESS", 2)
    first = warm_up(pool, clip)
    warm_up(pool, clip)
    wait_for_end(first)

    assert warm_up(pool, clip) != first


def test_processes_end_with_the_pool(spool: Path, clip: Path) -> None:
    pool = DecoderPool(2, DecodeLimits(), spool)
    pool.decode(clip).close()
    process_ids = pool.process_ids

    pool.close()

    for process_id in process_ids:
        wait_for_end(process_id)


def test_processes_end_with_a_server_that_is_killed(spool: Path, hours: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from simple_asr.audio.decode import *\n"
        "pool = DecoderPool(2, DecodeLimits(), Path(sys.argv[1]))\n"
        "pool.decode(Path(sys.argv[2]), lambda _: (print(*pool.process_ids, flush=True), input()))"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(spool), str(hours)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with server:
        assert server.stdout is not None
        process_ids = [int(word) for word in server.stdout.readline().split()]
        server.kill()

    assert process_ids
    for process_id in process_ids:
        wait_for_end(process_id)


# What a decoder may do -------------------------------------------------------------------------


def test_a_decoder_knows_no_secret_of_the_server(
    spool: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "the-secret")
    with contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool:
        process_id = warm_up(pool, clip)

        environment = Path(f"/proc/{process_id}/environ").read_bytes()
        variables = {entry.split(b"=")[0] for entry in environment.split(b"\0") if entry}

    assert variables <= {b"PYTHONPATH", b"LD_LIBRARY_PATH", b"OPENBLAS_NUM_THREADS"}


def test_a_decoder_holds_its_socket_and_nothing_of_the_server(
    spool: Path, clip: Path, tmp_path: Path
) -> None:
    with (tmp_path / "private").open("wb") as private:
        os.set_inheritable(private.fileno(), True)
        with contextlib.closing(DecoderPool(1, DecodeLimits(), spool)) as pool:
            folder = Path(f"/proc/{warm_up(pool, clip)}/fd")

            held = {path.readlink().name.split(":")[0] for path in folder.iterdir()}

    assert held == {"socket", "null"}


def test_a_decoder_runs_under_limits(spool: Path, clip: Path) -> None:
    limits = DecodeLimits(max_seconds=10, memory_bytes=512 * 1024**2)
    with contextlib.closing(DecoderPool(1, limits, spool)) as pool:
        process_id = warm_up(pool, clip)

        def limit(kind: int) -> tuple[int, int]:
            return resource.prlimit(process_id, kind)

        assert limit(resource.RLIMIT_CORE) == (0, 0)
        assert limit(resource.RLIMIT_AS) == (512 * 1024**2, 512 * 1024**2)
        assert limit(resource.RLIMIT_FSIZE) == (320_002, 320_002)
        assert limit(resource.RLIMIT_NOFILE) == (32, 32)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process_id}/status").read_text()
