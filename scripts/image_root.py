#!/usr/bin/env python3
"""Runs the Dockerfile's steps in a clean Debian, without Docker, and says how large an image is.

    sudo python3 scripts/image_root.py [TARGET] [--keep FOLDER]

TARGET is `cpu` (the default) or `cuda`. Debian's own Python stands in for the official image of it.
At the end the image's command is started as its user, asked by its health check, and stopped. Needs
root, debootstrap, unshare and git; Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
SUITE = "bookworm"
BASE_PACKAGES = "python3,python3-venv"
PORT = "9898"
START_SECONDS = 120
# What a build gets from the machine it runs on, and no image keeps.
HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
HOST_VARIABLES = ("PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy")
# Kept between builds, as Docker keeps a cache mount.
CACHE = REPOSITORY / ".cache" / "image"
MIB = 1024**2


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile: the base it begins with, and its instructions in order."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Image:
    """A folder that an image would be made of, and what its instructions have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


Built = Callable[[str], Image]


def main() -> None:
    arguments = _arguments()
    stages = read_stages(DOCKERFILE.read_text())
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        image = build(stages, arguments.target, arguments.keep or Path(folder))
        print(f"The image {arguments.target}: {mib(image.root):.0f} MiB", flush=True)
        print(f"  compressed, as it is pulled: {compressed_mib(image.root):.0f} MiB", flush=True)
        try_out(image)
    print("Started as its user, healthy, and ended by SIGTERM with 0.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="?", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--keep", type=Path, help="an empty folder for the roots, to look into")
    return parser.parse_args()


def read_stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in filter(str.strip, text.splitlines()):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.split()
            stage = stages[name] = Stage(name, base)
        else:
            stage.steps.append((instruction, rest))
    return stages


# Building ----------------------------------------------------------------------------------------


def build(stages: dict[str, Stage], target: str, folder: Path) -> Image:
    """The target and the stages it needs, each in a folder of its own; says what each step adds."""
    debian = folder / "debian"
    make_debian(debian)
    print(f"Debian {SUITE} with {BASE_PACKAGES}: {mib(debian):.0f} MiB", flush=True)
    images: dict[str, Image] = {}

    def built(name: str) -> Image:
        if name not in stages:
            return Image(debian, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/bin"})
        if name not in images:
            stage = stages[name]
            image = replace(built(stage.base), root=folder / name)
            run("cp", "--archive", str(built(stage.base).root), str(image.root))
            print(f"Stage {name}", flush=True)
            for instruction, rest in stage.steps:
                before = mib(image.root)
                image = take_step(image, instruction, rest, built)
                if instruction in ("RUN", "COPY"):
                    added = mib(image.root) - before
                    print(f"  {added:7.1f} MiB  {instruction} {rest[:80]}", flush=True)
            images[name] = image
        return images[name]

    return built(target)


def make_debian(root: Path) -> None:
    run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(root))
    shutil.rmtree(root / "var/cache/apt/archives")
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")


def take_step(image: Image, instruction: str, rest: str, built: Built) -> Image:
    """The image after an instruction."""
    if instruction == "RUN":
        cached, command = re.findall(r"^(?:--mount=type=cache,target=(\S+)\s+)?(.+)$", rest)[0]
        inside(image, ["sh", "-ec", command], cached)
    elif instruction == "COPY":
        copy(image, shlex.split(rest), built)
    elif instruction == "ENV":
        return replace(image, environment=with_variables(image.environment, rest))
    elif instruction in SETS:
        name, read = SETS[instruction]
        return replace(image, **{name: read(rest)})
    elif instruction not in WITHOUT_EFFECT:
        raise SystemExit(f"{instruction} {rest}: this script does not know how to do that yet.")
    return image


WITHOUT_EFFECT = {"EXPOSE", "STOPSIGNAL", "VOLUME"}
SETS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "WORKDIR": ("workdir", str),
    "USER": ("user", str),
    "ENTRYPOINT": ("entrypoint", json.loads),
    "CMD": ("command", json.loads),
    "HEALTHCHECK": ("health", lambda rest: json.loads(rest.split("CMD", 1)[1])),
}


def with_variables(environment: dict[str, str], rest: str) -> dict[str, str]:
    given = dict(word.split("=", 1) for word in shlex.split(rest))
    path = {"PATH": given["PATH"].replace("$PATH", environment["PATH"])} if "PATH" in given else {}
    return {**environment, **given, **path}


def copy(image: Image, words: list[str], built: Built) -> None:
    """From another stage, or of what git keeps, which is all that a fresh clone has."""
    *sources, target = words
    destination = image.root / str(Path(image.workdir) / target).lstrip("/")
    if sources[0].startswith("--from="):
        root = built(sources[0].removeprefix("--from=")).root
        destination.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "--archive", str(root / sources[1].lstrip("/")), str(destination))
        return
    kept = run("git", "-C", str(REPOSITORY), "ls-files", "-z", *sources).split("\0")
    for name in filter(None, kept):
        into = destination if target.endswith("/") or target == "." else destination.parent
        copied = into / (Path(name).name if target.endswith("/") else name)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, copied)


# Running -----------------------------------------------------------------------------------------

# A mount namespace of its own, so that nothing stays mounted however this ends.
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
ENTER = """
root=$1 host_files=$2 user=$3 directory=$4 cache=$5 cached=$6; shift 6
mkdir -p "$root$directory"
mount --bind "$root" "$root"; mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"
for file in $host_files; do
    [ -e "$file" ] || continue
    mkdir -p "$root${file%/*}"; [ -e "$root$file" ] || : >"$root$file"
    mount --bind "$file" "$root$file"
done
if [ "$cached" ]; then mkdir -p "$root$cached" "$cache"; mount --bind "$cache" "$root$cached"; fi
exec chroot --userspec="$user" "$root" sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
"""


def entering(
    image: Image, command: list[str], cached: str = "", **environment: str
) -> tuple[list[str], dict[str, str]]:
    """A command line that runs `command` in the image as its user, and its environment."""
    host = {name: os.environ[name] for name in HOST_VARIABLES if name in os.environ}
    enter = [ENTER, "enter", str(image.root), " ".join(HOST_FILES), image.user, image.workdir]
    return (
        [*UNSHARE, "sh", "-ec", *enter, str(CACHE), cached, *command],
        {**host, **image.environment, **environment},
    )


def inside(image: Image, command: list[str], cached: str) -> None:
    words, environment = entering(image, command, cached)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")


def try_out(image: Image) -> None:
    """The image's own command, as its user, with the weights that come with the package."""
    words, environment = entering(
        image,
        [*image.entrypoint, *image.command],
        PORT=PORT,
        HOST="127.0.0.1",
        DEFAULT_MODEL="base",
        HF_HUB_OFFLINE="1",
    )
    server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_healthy(image, server)
    finally:
        # To the server itself: unshare, which waits for it, hands no signal on.
        for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        status = server.wait(60)
    if status:
        raise SystemExit(f"The server ended with {status}.")


def wait_until_healthy(image: Image, server: subprocess.Popen[bytes]) -> None:
    words, environment = entering(image, image.health, PORT=PORT)
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS and server.poll() is None:
        asked = subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, check=False)
        if asked.returncode == 0:
            print(f"Healthy after {time.monotonic() - began:.0f} s", flush=True)
            return
        time.sleep(1)
    raise SystemExit("The server was not healthy in time; its log is above.")


# Sizes -------------------------------------------------------------------------------------------


def mib(root: Path) -> float:
    return int(run("du", "--summarize", "--bytes", "--one-file-system", str(root)).split()[0]) / MIB


def compressed_mib(root: Path) -> float:
    """With gzip, as registries keep layers."""
    packed = subprocess.run(
        ["sh", "-c", 'tar --create --directory "$0" . | gzip --fast | wc --bytes', str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(packed.stdout) / MIB


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
