"""The real server in a process of its own: real decoders, and a model that always says "Hello."."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.support import WAIT, free_port

KEY = "0123456789abcdef" * 4

PROGRAM = """
import sys
from pathlib import Path
from simple_asr import assembly
from simple_asr.cli.main import main
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.tokens import Tokenizer
from simple_asr.service.transcriber import LoadedModel

tokenizer = Tokenizer.from_folder(Path(sys.argv[1]))
assembly.load_model = lambda *_: LoadedModel([FakeBackend(tokenizer)])
sys.argv = ["simple-asr", "serve"]
main()
"""


class RunningServer:
    """`simple-asr serve`, and what the system knows of its processes. The tests run on Linux."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, port: int) -> None:
        self.process_id = process.pid
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.spool = home / "spool"
        self._log = home / "log"
        self._process = process

    def client(self) -> httpx.Client:
        """With the key. It keeps no connection open, so that descriptors can be counted."""
        headers = {"X-API-Key": KEY, "Connection": "close"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=WAIT)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def decoders(self) -> list[int]:
        """Process ids of its children."""
        children = []
        for thread in Path(f"/proc/{self.process_id}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                children += [int(child) for child in (thread / "children").read_text().split()]
        return children

    @property
    def descriptors(self) -> Counter[str]:
        """What is open in the server itself: files by their names, sockets and pipes by their kind.

        Without its database, to which it keeps a connection for each thread that once needed one.
        """
        names = Counter[str]()
        for descriptor in Path(f"/proc/{self.process_id}/fd").iterdir():
            with suppress(FileNotFoundError):
                names[os.readlink(descriptor).partition(":")[0]] += 1  # noqa: PTH115  (not a path)
        return Counter({name: n for name, n in names.items() if "jobs.sqlite3" not in name})

    def until_closed(self, before: Counter[str]) -> None:
        """Waits until no more is open than `before`, but for one thing: a connection may begin."""
        try:
            self.until(lambda: (self.descriptors - before).total() <= 1, "descriptors are closed")
        except AssertionError as error:
            raise AssertionError(f"{error}, left are {self.descriptors - before}") from None

    @property
    def spooled(self) -> list[str]:
        """Names in the spool folder, as the server's own view of the file system has it."""
        return os.listdir(f"/proc/{self.process_id}/root{self.spool}")  # noqa: PTH208

    def forget_peak(self) -> None:
        """Peak memory counts from here."""
        for process_id in (self.process_id, *self.decoders):
            with suppress(OSError):
                Path(f"/proc/{process_id}/clear_refs").write_text("5")

    @property
    def peak_mib(self) -> float:
        """No less than the most memory all processes have held at once."""
        kib = 0
        for process_id in (self.process_id, *self.decoders):
            with suppress(OSError):
                status = Path(f"/proc/{process_id}/status").read_text()
                kib += int(status.split("VmHWM:")[1].split()[0])
        return kib / 1024

    @property
    def cpu_seconds(self) -> float:
        """What all processes have used of the processor; one that ended counts no more."""
        ticks = 0
        for process_id in (self.process_id, *self.decoders):
            with suppress(OSError):
                fields = Path(f"/proc/{process_id}/stat").read_text().split()
                ticks += int(fields[13]) + int(fields[14])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """The exit status, once SIGTERM has ended it."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(WAIT)

    def kill(self) -> None:
        """SIGKILL: it can do nothing more."""
        self._process.kill()
        self._process.wait()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits for what the system alone can tell. Fails after WAIT seconds."""
        deadline = time.monotonic() + WAIT
        while not holds():
            assert self.is_running, f"the server has ended:\n{self.log}"
            assert time.monotonic() < deadline, f"not so after {WAIT} s: {what}"
            time.sleep(0.02)


@contextmanager
def running_server(
    home: Path,
    tokenizer: Path | None,
    *,
    wrapper: Sequence[str] = (),
    program: str = PROGRAM,
    **settings: object,
) -> Iterator[RunningServer]:
    """A server that is ready. `wrapper` is a command that runs the server's; `home` is empty.

    With a folder that has a tokenizer the model is that of `program`, with None the real
    DEFAULT_MODEL. It has no parent that would start it again, unless `supervise`.
    """
    fake, real = ["-c", program, str(tokenizer)], ["-m", "simple_asr", "serve"]
    (home / "keys.txt").write_text(f"{KEY}\n")
    (home / "keys.txt").chmod(0o600)
    (home / "spool").mkdir()
    with (home / "log").open("wb") as log:
        port = free_port()
        given = {
            "keys_file": home / "keys.txt",
            "spool_dir": home / "spool",
            "jobs_dir": home / "jobs",
            # So that the process that is started is the one that serves.
            "supervise": False,
            **settings,
        }
        environment = {name.upper(): str(value) for name, value in given.items()}
        process = subprocess.Popen(
            [*wrapper, sys.executable, *(fake if tokenizer else real)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=home,
            env={**os.environ, **environment, "HOST": "127.0.0.1", "PORT": str(port)},
        )
    server = RunningServer(process, home, port)
    try:
        server.until(lambda: _is_ready(server), "the server is ready")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(WAIT)
        process.kill()
        process.wait()


def _is_ready(server: RunningServer) -> bool:
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.HTTPError:
        return False
