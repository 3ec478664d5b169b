"""Code of a stranger in a confined process gets at nothing: each wall is tried by itself, and both.

The program tries one thing after the other and tells what came of it. It runs unconfined too, where
everything must succeed: an attempt that fails by itself would prove nothing.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from simple_asr.audio import sandbox

if not sandbox._machine():
    pytest.skip("no wall is known for this system", allow_module_level=True)

ATTEMPTS = r"""
import ctypes, json, mmap, os, resource, socket, sys, threading
from simple_asr.audio import sandbox
from simple_asr.audio.decoder_process import harden
from simple_asr.audio.decoder_protocol import DecodeLimits

wall, folder, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
held_file = open(f"{folder}/held", "r+b", buffering=0)
held_socket, other_end = socket.socketpair()

def connect(kind=socket.AF_INET, address=("127.0.0.1", port)):
    with socket.socket(kind) as connection:
        connection.connect(address)

def listen():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def run():
    os.posix_spawn("/bin/true", ["true"], {})

def start_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def signal_parent():
    os.kill(os.getppid(), 0)

def look_into_parent():
    os.close(os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY))

def runnable_memory():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()

def change_limit():
    resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))

def trace():
    if ctypes.CDLL(None).ptrace(0, 0, 0, 0) < 0:
        raise PermissionError

def use_what_it_holds():
    held_file.read(1), held_file.seek(0), held_file.write(b"x")
    held_socket.sendall(b"x"), other_end.recv(1)

ATTEMPTS = {
    "connect": connect,
    "connect to a Unix socket": lambda: connect(socket.AF_UNIX, f"{folder}/socket"),
    "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
        b"x", ("127.0.0.1", port)
    ),
    "listen": listen,
    "read a file": lambda: open(f"{folder}/file").close(),
    "write a file": lambda: open(f"{folder}/file", "w").close(),
    "make a file": lambda: open(f"{folder}/new", "x").close(),
    "list a folder": lambda: os.listdir(folder),
    "make a folder": lambda: os.mkdir(f"{folder}/new folder"),
    "rename a file": lambda: os.rename(f"{folder}/file", f"{folder}/renamed"),
    "remove a file": lambda: os.unlink(f"{folder}/renamed"),
    "look into the parent": look_into_parent,
    "signal the parent": signal_parent,
    "run a program": run,
    "fork": fork,
    "start a thread": start_thread,
    "make memory to run": runnable_memory,
    "change a limit": change_limit,
    "trace": trace,
    "use what it holds": use_what_it_holds,
}

def outcome(attempt):
    try:
        attempt()
    except (PermissionError, RuntimeError):  # A thread that cannot start raises the latter.
        return "refused"
    except FileNotFoundError:
        return "missing"
    return "done"

{
    "none": lambda: None,
    "Landlock": lambda: (sandbox.set_no_new_privileges(), sandbox.forbid_paths()),
    "seccomp": lambda: (sandbox.set_no_new_privileges(), sandbox.forbid_calls()),
    "both": lambda: harden(DecodeLimits()),
}[wall]()
print(json.dumps({name: outcome(attempt) for name, attempt in ATTEMPTS.items()}))
"""

Outcomes = dict[str, str]
ALLOWED = {"use what it holds"}
# Landlock knows paths, TCP and, of late, signals.
LANDLOCKED = {
    "read a file", "write a file", "make a file", "list a folder", "make a folder",
    "rename a file", "remove a file", "look into the parent", "run a program",
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """What came of each attempt behind a wall."""

    def of(wall: str) -> Outcomes:
        folder = tmp_path_factory.mktemp("confined")
        (folder / "file").write_text("private")
        (folder / "held").write_text("held")
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(folder / "socket"))
            unix.listen()
            port = tcp.getsockname()[1]
            command = [sys.executable, "-c", ATTEMPTS, wall, str(folder), str(port)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        outcomes: Outcomes = json.loads(run.stdout)
        return outcomes

    return of


def test_unconfined_every_attempt_succeeds(outcomes: Callable[[str], Outcomes]) -> None:
    assert set(outcomes("none").values()) == {"done"}


def test_behind_seccomp_only_what_is_held_can_be_used(
    outcomes: Callable[[str], Outcomes],
) -> None:
    assert succeeded(outcomes("seccomp")) == ALLOWED


@pytest.mark.skipif(sandbox.landlock_version() < 1, reason="this kernel has no Landlock")
def test_behind_landlock_no_path_can_be_used(outcomes: Callable[[str], Outcomes]) -> None:
    behind = outcomes("Landlock")

    assert not LANDLOCKED & succeeded(behind)
    assert succeeded(behind) >= ALLOWED


def test_a_hardened_decoder_can_use_what_it_holds_and_nothing_else(
    outcomes: Callable[[str], Outcomes],
) -> None:
    assert succeeded(outcomes("both")) == ALLOWED


def succeeded(outcomes: Outcomes) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "done"}


def test_abort_still_ends_the_process_by_its_own_signal() -> None:
    program = "import os; from simple_asr.audio import sandbox; sandbox.confine(); os.abort()"

    run = subprocess.run([sys.executable, "-c", program], check=False)

    assert run.returncode == -signal.SIGABRT


def test_another_kind_of_processor_has_no_walls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")

    assert sandbox.forbid_paths() is False
    assert sandbox.forbid_calls() is False
