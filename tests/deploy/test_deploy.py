"""The image, the Compose file and the systemd unit fit the program and are locked down.

No engine, no GPU and no running systemd is needed: what their own checkers can say (hadolint,
`docker compose config`, systemd-analyze) is asked where they are installed.
"""

from __future__ import annotations

import configparser
import fnmatch
import http.server
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from pydantic import SecretStr

from simple_asr.cli.console import EXIT_CONFIGURATION
from simple_asr.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE_FILE = ROOT / "docker-compose.yml"
UNIT_FILE = ROOT / "asr.service"
GUIDE = (ROOT / "docs" / "deployment.md").read_text()

TARGETS = ["cpu", "cuda", "rocm"]
SERVICE_OF_PROFILE = {"": "asr", "cpu": "asr", "nvidia": "asr-nvidia", "amd": "asr-amd"}
TARGET_OF_SERVICE = {"asr": "cpu", "asr-nvidia": "cuda", "asr-amd": "rocm"}
SERVICES = list(TARGET_OF_SERVICE)


# The image ---------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A stage of the Dockerfile: its instructions in order, those of its base stage first."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        words = (word for text in self.all("ENV") for word in shlex.split(text))
        return dict(word.split("=", 1) for word in words)


def read_stages() -> dict[str, Stage]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    stages: dict[str, Stage] = {}
    for instruction, rest in (line.split(maxsplit=1) for line in lines if line.strip()):
        if instruction == "FROM":
            base, _, name = rest.split()
            inherited = stages[base].instructions if base in stages else []
            stages[name] = Stage(base, list(inherited))
            current = stages[name]
        else:
            current.instructions.append((instruction, rest))
    return stages


STAGES = read_stages()


def settings_from(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        if name.lower() in Settings.model_fields:
            monkeypatch.setenv(name, value)
    return load_settings(env_file=None)


def default(setting: str) -> str:
    return str(Settings.model_fields[setting].default)


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_starts_the_server_as_process_one(target: str) -> None:
    command = json.loads(STAGES[target].last("ENTRYPOINT")) + json.loads(STAGES[target].last("CMD"))

    assert command == ["simple-asr", "serve"]
    assert STAGES[target].last("STOPSIGNAL") == "SIGTERM"
    assert importlib.metadata.entry_points(group="console_scripts", name=command[0])


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_does_not_run_as_root(target: str) -> None:
    user, group = STAGES[target].last("USER").split(":")

    assert (user, group) == ("10001", "10001")
    assert any(f"--uid {user}" in command for command in STAGES[target].all("RUN"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_keeps_its_files_in_volumes_and_listens_on_the_port_it_exposes(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from(STAGES[target].environment, monkeypatch)
    volumes = [Path(volume) for volume in json.loads(STAGES[target].last("VOLUME"))]

    assert volumes == [Path("/data"), Path("/models")]
    assert settings.keys_file.parent == Path("/data")
    assert settings.spool_dir.parent == Path("/data")
    assert settings.model_download_root == Path("/models")
    assert settings.host == "0.0.0.0"  # noqa: S104  # A container's own network.
    assert str(settings.port) == STAGES[target].last("EXPOSE") == default("port")


def test_every_image_has_the_same_settings_but_the_device() -> None:
    def settings_of(target: str) -> dict[str, str]:
        return {
            name: value
            for name, value in STAGES[target].environment.items()
            if name.lower() in Settings.model_fields
        }

    devices = {target: settings_of(target).pop("MODEL_DEVICE") for target in TARGETS}
    others = [{**settings_of(target), "MODEL_DEVICE": ""} for target in TARGETS]

    assert devices == {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda"}
    assert others[0] == others[1] == others[2]


def test_no_secret_is_baked_into_an_image() -> None:
    secrets = {
        name.upper()
        for name, setting in Settings.model_fields.items()
        if SecretStr in getattr(setting.annotation, "__args__", (setting.annotation,))
    }
    given = {name for stage in STAGES.values() for name in stage.environment}
    arguments = {text.split("=")[0] for stage in STAGES.values() for text in stage.all("ARG")}

    assert secrets
    assert not secrets & (given | arguments)


def test_every_package_of_an_image_is_locked_by_its_digest() -> None:
    installs = [
        command
        for stage in STAGES.values()
        for command in stage.all("RUN")
        if "pip install" in command
    ]

    for command in installs:
        project = command.endswith("--no-build-isolation .")
        checked_wheel = "/tmp/wheels/" in command  # noqa: S108  # In the image, not here.
        assert "--no-deps" in command
        assert project or checked_wheel or "--require-hashes" in command
    assert "--checksum=sha256:${ROCM_WHEELS_SHA256}" in STAGES["rocm-build"].last("ADD")


def test_every_locked_requirement_of_an_image_has_a_digest() -> None:
    locks = {
        word
        for stage in STAGES.values()
        for text in stage.all("COPY")
        for word in text.split()
        if word.endswith(".txt")
    }

    assert locks == {"requirements/run.txt", "requirements/cuda.txt"}
    for lock in locks:
        lines = re.sub(r"\\\n", " ", (ROOT / lock).read_text()).splitlines()
        pinned = [line for line in lines if "==" in line and not line.startswith(("#", " "))]
        assert pinned
        assert all("--hash=sha256:" in line for line in pinned)


def rocm_wheels() -> dict[str, str]:
    return dict(text.split("=", 1) for text in STAGES["rocm-build"].all("ARG"))


def test_the_engine_for_amd_is_a_version_the_project_accepts() -> None:
    version = re.search(r"/v([\d.]+)/", rocm_wheels()["ROCM_WHEELS_URL"])
    required = [
        Requirement(text)
        for text in importlib.metadata.requires("simple-asr-server") or []
        if text.startswith("ctranslate2")
    ]

    assert version
    assert required
    assert all(version[1] in requirement.specifier for requirement in required)


def test_the_guide_gives_the_address_and_digest_that_the_image_uses() -> None:
    for name, value in rocm_wheels().items():
        assert f"--build-arg {name}={value}" in GUIDE


@dataclass(frozen=True)
class IgnoreRule:
    pattern: str
    ignores: bool

    def matches(self, path: str) -> bool:
        parts = path.split("/")
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if self.pattern.startswith("**/"):
            return any(fnmatch.fnmatch(part, self.pattern[3:]) for part in parts)
        return any(
            prefix.count("/") == self.pattern.count("/") and fnmatch.fnmatch(prefix, self.pattern)
            for prefix in prefixes
        )


def is_ignored(path: str) -> bool:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [
        IgnoreRule(line.lstrip("!").rstrip("/"), ignores=not line.startswith("!"))
        for line in lines
        if line and not line.startswith("#")
    ]
    # The last rule that matches decides, as in Docker.
    return next((rule.ignores for rule in reversed(rules) if rule.matches(path)), False)


def test_everything_the_image_copies_is_there_and_reaches_the_builder() -> None:
    copied = {
        word
        for stage in STAGES.values()
        for text in stage.all("COPY")
        if "--from=" not in text
        for word in text.split()[:-1]
    }

    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [path for path in copied if is_ignored(path)] == []
    assert not is_ignored("src/simple_asr/errors.py")


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        "data/keys.txt",
        "models/base/model.bin",
        ".venv/bin/python",
        "tests/x",
        "src/simple_asr/__pycache__/errors.pyc",
    ],
)
def test_keys_models_and_leftovers_do_not_reach_the_builder(path: str) -> None:
    assert is_ignored(path)


@contextmanager
def a_server_that_answers(status: int) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # As inherited.
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health_check(target: str, port: int, home: Path) -> int:
    """The exit status of the image's health check, run here in an empty folder."""
    command = json.loads(STAGES[target].last("HEALTHCHECK").split("CMD", 1)[1])
    environment = {"PORT": str(port), "http_proxy": "http://127.0.0.1:1", "PATH": os.defpath}
    program = [sys.executable, "-m", "simple_asr"]
    assert command[0] == "simple-asr"
    return subprocess.run(
        [*program, *command[1:]], env=environment, cwd=home, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("target", ["cpu", "rocm"])
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (500, False)])
def test_an_image_is_healthy_when_health_answers_200(
    target: str, status: int, healthy: bool, tmp_path: Path
) -> None:
    with a_server_that_answers(status) as port:
        exit_status = health_check(target, port, tmp_path)

    assert (exit_status == 0) == healthy


def test_an_image_in_which_nothing_listens_is_unhealthy(tmp_path: Path) -> None:
    with a_server_that_answers(200) as port:
        pass

    assert health_check("cpu", port, tmp_path) != 0


@pytest.mark.parametrize("name", ["Dockerfile", "kuberay/Dockerfile"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if not (hadolint := shutil.which("hadolint", path=tools)):
        pytest.skip("hadolint is not installed")

    checked = subprocess.run(
        [hadolint, ROOT / "deploy" / name], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stdout) == (0, "")


# Compose -----------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())


def started_with(*profiles: str) -> list[str]:
    """What `docker compose up` starts. Compose reads no profile at all as the one empty name."""
    active = set(profiles or [""])
    return [
        name
        for name, service in COMPOSE["services"].items()
        if not service.get("profiles") or active & set(service["profiles"])
    ]


@pytest.mark.parametrize(("profile", "service"), SERVICE_OF_PROFILE.items())
def test_each_profile_starts_one_service_so_that_none_takes_anothers_port(
    profile: str, service: str
) -> None:
    assert started_with(*filter(None, [profile])) == [service]


@pytest.mark.parametrize(("profile", "service"), SERVICE_OF_PROFILE.items())
def test_compose_itself_reads_the_profiles_so(profile: str, service: str) -> None:
    compose = ["docker", "compose", "--env-file", os.devnull, "--file", str(COMPOSE_FILE)]
    environment = {**os.environ, "COMPOSE_PROFILES": profile}
    if (
        not shutil.which("docker")
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("Docker has no compose plugin here")

    printed = subprocess.run(
        [*compose, "config", "--services"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (printed.returncode, printed.stdout.split()) == (0, [service]), printed.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_builds_a_target_of_the_dockerfile(name: str) -> None:
    build = COMPOSE["services"][name]["build"]

    assert ROOT / build["dockerfile"] == DOCKERFILE
    assert (ROOT / build["context"]).resolve() == ROOT
    assert build["target"] == TARGET_OF_SERVICE[name]
    assert build["target"] in STAGES


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_change_nothing_but_its_volumes(name: str) -> None:
    service = COMPOSE["services"][name]
    target = STAGES[TARGET_OF_SERVICE[name]]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108  # In the container, not here.
    assert "privileged" not in service
    assert service["volumes"] == ["data:/data", "models:/models"]
    assert json.loads(target.last("VOLUME")) == ["/data", "/models"]
    assert set(COMPOSE["volumes"]) == {"data", "models"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_copied_env_example_does_not_move_files_out_of_the_volumes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE["services"][name]
    image = STAGES[TARGET_OF_SERVICE[name]].environment
    native = {
        field.upper(): default(field)
        for field in ("keys_file", "spool_dir", "jobs_dir", "host", "port", "model_download_root")
    }
    values = {**image, **native, **service["environment"]}
    values.pop("HSA_OVERRIDE_GFX_VERSION", None)

    settings = settings_from(values, monkeypatch)

    assert service["env_file"] == [{"path": ".env", "required": False}]
    assert settings == settings_from(image, monkeypatch)


@pytest.mark.parametrize("name", SERVICES)
def test_host_and_port_of_the_settings_are_where_the_container_is_published(name: str) -> None:
    published = f"${{HOST:-{default('host')}}}:${{PORT:-{default('port')}}}:9854"

    assert COMPOSE["services"][name]["ports"] == [published]
    assert COMPOSE["services"][name]["environment"]["PORT"] == "9854"


def test_only_the_gpu_services_ask_for_a_gpu() -> None:
    cpu, nvidia, amd = (COMPOSE["services"][name] for name in SERVICES)

    assert not {"deploy", "devices", "group_add"} & cpu.keys()
    assert nvidia["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    ]
    assert amd["devices"] == ["/dev/kfd", "/dev/dri"]
    assert amd["group_add"] == ["video", "${RENDER_GID:-render}"]
    assert any("groupadd --system --force render" in text for text in STAGES["rocm"].all("RUN"))


def test_the_version_amd_is_told_is_the_settings_default_and_may_be_empty() -> None:
    told = COMPOSE["services"]["asr-amd"]["environment"]["HSA_OVERRIDE_GFX_VERSION"]

    # `-` and not `:-`: an empty value stays empty.
    assert told == f"${{HSA_OVERRIDE_GFX_VERSION-{default('hsa_override_gfx_version')}}}"


@pytest.mark.parametrize("name", SERVICES)
def test_docker_waits_longer_for_the_end_than_requests_get(name: str) -> None:
    patience = re.fullmatch(r"(\d+)s", COMPOSE["services"][name]["stop_grace_period"])

    assert patience
    assert int(patience[1]) > Settings.model_fields["grace_seconds"].default


def test_every_variable_and_profile_of_the_compose_file_is_explained() -> None:
    variables = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text()))
    unexplained = {
        name
        for name in variables
        if name.lower() not in Settings.model_fields and name not in GUIDE
    }

    assert unexplained == set()
    for profile in ("nvidia", "amd"):
        assert f"docker compose --profile {profile} up --detach" in GUIDE


# systemd -----------------------------------------------------------------------------------------


def read_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # Names keep their capitals.
    unit.read(UNIT_FILE)
    return unit


UNIT = read_unit()
SERVICE = UNIT["Service"]


def test_the_unit_runs_the_console_script_of_a_checkout() -> None:
    program, command = SERVICE["ExecStart"].split()

    assert program == "/opt/asr/.venv/bin/simple-asr"
    assert command == "serve"
    assert UNIT["Unit"]["AssertPathExists"] == program


def test_the_unit_has_its_own_user_and_folder() -> None:
    assert SERVICE["DynamicUser"] == "yes"
    assert SERVICE["WorkingDirectory"] == f"%S/{SERVICE['StateDirectory']}"
    assert not {"User", "ReadWritePaths"} & SERVICE.keys()


def test_the_settings_default_folders_lie_in_the_units_own() -> None:
    for name in ("keys_file", "spool_dir", "jobs_dir", "model_download_root"):
        assert not Settings.model_fields[name].default.is_absolute()


def test_a_reload_is_a_hangup_and_a_failure_a_restart() -> None:
    assert SERVICE["ExecReload"].endswith("kill -HUP $MAINPID")
    assert SERVICE["Restart"] == "on-failure"


def test_a_server_that_is_set_up_wrongly_is_not_started_again_and_again() -> None:
    assert SERVICE["RestartPreventExitStatus"] == str(EXIT_CONFIGURATION)


def test_systemd_waits_longer_for_the_end_than_requests_get() -> None:
    assert (
        int(SERVICE["TimeoutStopSec"].removesuffix("s"))
        > Settings.model_fields["grace_seconds"].default
    )


@pytest.fixture
def unit_that_can_start(tmp_path: Path) -> Path:
    """The unit with a program that exists: the checker looks for it."""
    unit = tmp_path / UNIT_FILE.name
    unit.write_text(UNIT_FILE.read_text().replace("/opt/asr/.venv/bin/simple-asr", "/bin/true"))
    return unit


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_systemd_accepts_the_unit_without_a_remark(unit_that_can_start: Path) -> None:
    checked = systemd_analyze("verify", str(unit_that_can_start))

    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_finds_little_that_the_unit_could_do_harm_with(unit_that_can_start: Path) -> None:
    # 2.0 of 10 with systemd 252; what is left is the network, the GPU and the engine's compiler.
    checked = systemd_analyze(
        "security", "--offline=true", "--threshold=25", "--no-pager", str(unit_that_can_start)
    )
    if "unrecognized option" in checked.stderr:
        pytest.skip("This systemd is older than 250")

    assert checked.returncode == 0, checked.stdout.splitlines()[-1:]
