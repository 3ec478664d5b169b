"""Two machines on one: a Ray node beside this process, and one in a network namespace of its own.

The second can be killed as a machine is, with all that runs on it. Needs root, for the namespace.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support import WAIT, Clip

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEAD, WORKER = "10.213.7.1", "10.213.7.2"
# Below those that Ray gives its workers.
GCS_PORT, DASHBOARD_PORT, PORT = 6389, 8299, 9899
# Seconds: on a busy machine Ray takes minutes to start.
PATIENCE = 5 * WAIT
SPEECH = "ray::ServeReplica:simple-asr:Speech"


def missing() -> str:
    """Why two machines cannot be had here; empty where they can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    return "" if shutil.which("ip") else "iproute2 is not installed"


@dataclass
class TwoMachines:
    """Each has one core to give. Owned by `two_machines`."""

    folder: Path
    base_model: Path
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    namespace: str = field(default_factory=lambda: f"asr{os.getpid()}")
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    # Machines ------------------------------------------------------------------------------------

    def start_head(self) -> None:
        self._ray(
            [
                "--head",
                f"--port={GCS_PORT}",
                f"--node-ip-address={HEAD}",
                "--include-dashboard=true",
                f"--dashboard-port={DASHBOARD_PORT}",
                f"--temp-dir={self.folder}/ray",
            ]
        )

    def start_worker(self) -> None:
        self._ray(
            [f"--address={HEAD}:{GCS_PORT}", f"--node-ip-address={WORKER}"],
            before=["ip", "netns", "exec", self.namespace],
        )

    def kill_worker(self) -> None:
        """All its processes at once: a machine that has lost its power."""
        for process_id in self._in_namespace():
            os.kill(process_id, signal.SIGKILL)

    def replicas(self) -> dict[str, list[int]]:
        """Process ids of the speech replicas by the machine they run on."""
        inside = self._in_namespace()
        found: dict[str, list[int]] = {HEAD: [], WORKER: []}
        for process in Path("/proc").glob("[0-9]*"):
            if command(process).startswith(SPEECH):
                process_id = int(process.name)
                found[WORKER if process_id in inside else HEAD].append(process_id)
        return found

    def _ray(self, arguments: list[str], before: list[str] = []) -> None:  # noqa: B006  (read only)
        node = subprocess.Popen(
            [*before, BIN / "ray", "start", "--block", "--num-cpus=1", *arguments],
            env=self.environment,
            stdout=(self.folder / f"node{len(self.nodes)}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        self.nodes.append(node)

    def _in_namespace(self) -> set[int]:
        return set(map(int, run("ip", "netns", "pids", self.namespace).split()))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"{HEAD}:{GCS_PORT}",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{DASHBOARD_PORT}",
        }

    # The application -----------------------------------------------------------------------------

    def deploy(self, settings: dict[str, str] | None = None, **args: float) -> None:
        """deploy/serve.yaml with this cluster's paths; returns once it is asked for."""
        config = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
        config["http_options"]["port"] = PORT
        (application,) = config["applications"]
        application["runtime_env"]["env_vars"] = {
            "DEFAULT_MODEL": str(self.base_model),
            "MODEL_DEVICE": "cpu",
            "AUDIO_SPEEDUP": "1",
            "KEYS_FILE": str(self.folder / "keys.txt"),
            "SPOOL_DIR": str(self.folder / "spool"),
            "JOBS_DIR": str(self.folder / "jobs"),
            "MODEL_DOWNLOAD_ROOT": str(self.base_model.parent),
            **(settings or {}),
        }
        application["args"] = {
            "min_replicas": 2,
            "max_replicas": 2,
            "cpus_per_replica": 1,
            "ingresses": 2,
            "grace_seconds": 60,
            **args,
        }
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        run(BIN / "serve", "deploy", file, env=self.environment)

    def deployments(self) -> dict[str, Any]:
        """State and replicas of each deployment, as `serve status` has them."""
        status = yaml.safe_load(run(BIN / "serve", "status", env=self.environment))
        return dict(status["applications"].get("simple-asr", {}))

    def is_running(self) -> bool:
        return bool(self.deployments().get("status") == "RUNNING")

    def num_replicas(self) -> int:
        """Speech replicas that have loaded their model."""
        speech = self.deployments().get("deployments", {}).get("Speech", {})
        return int(speech.get("replica_states", {}).get("RUNNING", 0))

    def has_a_replica_on_each(self) -> bool:
        """And a proxy that knows of it."""
        return (
            self.num_replicas() == 2
            and all(len(there) == 1 for there in self.replicas().values())
            and all(map(self._is_ready, (HEAD, WORKER)))
        )

    def _is_ready(self, machine: str) -> bool:
        try:
            answer = httpx.get(f"{self.url(machine)}/health/ready", timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    # Its callers ---------------------------------------------------------------------------------

    def url(self, machine: str = HEAD) -> str:
        return f"http://{machine}:{PORT}"

    def transcribe(
        self, clip: Clip, machine: str = HEAD, *, timeout: float = WAIT, **parameters: str
    ) -> httpx.Response:
        return httpx.post(
            f"{self.url(machine)}/transcribe",
            headers={"X-API-Key": self.key},
            files={"audio_file": clip.path.read_bytes()},
            params={"language": clip.language, **parameters},
            timeout=timeout,
        )


@contextmanager
def two_machines(base_model: Path) -> Iterator[TwoMachines]:
    """Two Ray nodes that know each other, and run nothing yet."""
    with tempfile.TemporaryDirectory(prefix="asr") as folder:
        machines = TwoMachines(Path(folder), base_model)
        (machines.folder / "keys.txt").write_text(machines.key + "\n")
        (machines.folder / "keys.txt").chmod(0o600)
        (machines.folder / "token").write_text(secrets.token_hex(32))
        with cable_to(machines.namespace):
            try:
                machines.start_head()
                wait_until(lambda: is_up(machines), "the head answers")
                machines.start_worker()
                yield machines
            finally:
                machines.kill_worker()
                for node in machines.nodes:
                    node.terminate()
                    node.wait(WAIT)


@contextmanager
def cable_to(namespace: str) -> Iterator[None]:
    """A network with this machine at HEAD and the namespace at WORKER."""
    inside = ["ip", "netns", "exec", namespace]
    here, there = f"{namespace}a", f"{namespace}b"
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        run("ip", "address", "add", f"{HEAD}/30", "dev", here)
        run("ip", "link", "set", here, "up")
        run(*inside, "ip", "address", "add", f"{WORKER}/30", "dev", there)
        run(*inside, "ip", "link", "set", there, "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        yield
    finally:
        run("ip", "netns", "delete", namespace)


def is_up(machines: TwoMachines) -> bool:
    """Whether the head takes deployments."""
    assert machines.nodes[0].poll() is None, (machines.folder / "node0.log").read_text()
    try:
        httpx.get(f"http://127.0.0.1:{DASHBOARD_PORT}/api/version", timeout=5)
    except httpx.TransportError:
        return False
    return True


def wait_until(is_so: Callable[[], bool], what: str) -> float:
    """Seconds it took; other processes' states are asked for, since nobody tells them."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < PATIENCE, f"In vain until {what}"
        time.sleep(0.2)
    return time.monotonic() - began


def cpu_seconds(process_id: int) -> float:
    """What a process has used of processors, of its own."""
    # The name, which may hold anything, ends with the last parenthesis; proc(5), fields 14 and 15.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return ""


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
