"""The files for nginx and Caddy, run with a real one in front of a real server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.server.conftest import KEY, _live
from tests.support import WAIT, free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
HEADERS = {"X-API-Key": KEY}
# Above what nginx takes unless told otherwise.
LARGE = bytes(3_000_000)


def program(name: str) -> str:
    """Where it is installed, or the environment says; skips where it is not."""
    path = os.environ.get(name.upper()) or shutil.which(name, path=f"{os.defpath}:/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed, and {name.upper()} does not name its program")
    return path


@dataclass
class Place:
    """Where a proxy listens, what it passes requests to, its folder and its certificate."""

    port: int
    upstream: int
    home: Path
    certificate: Path


# Configurations ----------------------------------------------------------------------------------


def nginx_command(place: Place, text: str) -> list[str]:
    """nginx in the foreground, with the file as a part of the least configuration."""
    text = re.sub(r"127\.0\.0\.1:9854", f"127.0.0.1:{place.upstream}", text)
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{place.port} ssl")
    text = re.sub(r".*listen \[::\]:443.*\n", "", text)
    text = re.sub(r"(ssl_certificate(?:_key)?) .*;", rf"\1 {place.certificate};", text)
    folders = "\n".join(
        f"{kind}_temp_path {place.home}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = place.home / "nginx.conf"
    whole.write_text(
        f"daemon off;\nmaster_process off;\npid {place.home}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{folders}\n{text}\n}}\n"
    )
    return [program("nginx"), "-p", str(place.home), "-c", str(whole), "-e", "stderr"]


def caddy_command(place: Place, text: str) -> list[str]:
    text = text.replace("127.0.0.1:9854", f"127.0.0.1:{place.upstream}")
    site = f"https://localhost:{place.port} {{\n\ttls {place.certificate} {place.certificate}"
    whole = place.home / "Caddyfile"
    whole.write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
        + text.replace("asr.example.org {", site)
    )
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(whole)]


Command = Callable[[Place, str], list[str]]
PROXIES: dict[str, tuple[str, Command]] = {
    "nginx": ("nginx.conf", nginx_command),
    "caddy": ("Caddyfile", caddy_command),
}


def test_nginx_finds_no_fault_with_its_file(tmp_path: Path) -> None:
    place = Place(free_port(), free_port(), tmp_path, tmp_path / "proxy.pem")
    issue(place.certificate)

    checked = run([*nginx_command(place, (DEPLOY / "nginx.conf").read_text()), "-t"], tmp_path)

    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_caddy_finds_no_fault_with_its_file(tmp_path: Path) -> None:
    file = str(DEPLOY / "Caddyfile")
    caddy = program("caddy")

    checked = run([caddy, "validate", "--adapter", "caddyfile", "--config", file], tmp_path)
    written = run([caddy, "fmt", file], tmp_path)

    assert checked.returncode == 0, checked.stderr
    assert written.stdout == (DEPLOY / "Caddyfile").read_text()


# Requests through them ---------------------------------------------------------------------------


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


Open = Callable[..., httpx.Client]
"""Opens a client of the proxy, at this address of the machine."""


@pytest.fixture(params=PROXIES)
def through(
    request: pytest.FixtureRequest, tmp_path: Path, transcriber: FakeTranscriber
) -> Iterator[Open]:
    """Clients of a proxy with our file, by the address they come from."""
    file, command = PROXIES[request.param]
    text = (DEPLOY / file).read_text()
    with proxied(text, command, tmp_path, transcriber, max_wrong_keys_per_minute=2) as open_client:
        yield open_client


@contextmanager
def proxied(
    text: str, command: Command, home: Path, transcriber: FakeTranscriber, **values: object
) -> Iterator[Open]:
    place = Place(free_port(), 0, home, home / "proxy.pem")
    trusting = issue(place.certificate)
    command(place, text)  # Skips before anything is started.
    keys_file = home / "keys.txt"
    keys_file.write_text(f"{KEY}\n")
    keys_file.chmod(0o600)
    folders = {"keys_file": keys_file, "spool_dir": home / "spool", "jobs_dir": home / "jobs"}
    settings = Settings.model_validate({**folders, **values})
    keys = KeyStore(keys_file)
    keys.reload()

    def client(address: str = "127.0.0.1") -> httpx.Client:
        transport = httpx.HTTPTransport(verify=trusting, local_address=address)
        url = f"https://localhost:{place.port}"
        return httpx.Client(base_url=url, transport=transport, headers=HEADERS, timeout=WAIT)

    with _live(create_app(settings, transcriber, keys)) as place.upstream:
        environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)}
        with (home / "proxy.log").open("wb") as log:
            proxy = subprocess.Popen(command(place, text), stderr=log, env=environment)
        try:
            until_it_listens(place, proxy)
            yield client
        finally:
            proxy.terminate()
            proxy.wait(WAIT)


def test_large_uploads_come_through(through: Open) -> None:
    with through() as client:
        answer = client.post("/transcribe", files={"audio_file": LARGE})

    assert answer.status_code == 200
    assert answer.json()["language"] == "ru"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_large_upload_is_refused_by_the_server_and_not_by_the_proxy(
    through: Open, tmp_path: Path
) -> None:
    file = tmp_path / "large.wav"
    file.write_bytes(LARGE * 10)
    with through() as client:
        # As httpx does not, curl listens while it sends, and does not ask before it does.
        options = ["--insecure", "--silent", "--header", "Expect:"]
        upload = ["--header", "Content-Type: audio/wav", "--data-binary", f"@{file}"]
        shown = ["--output", os.devnull, "--write-out", "%{http_code}"]
        address = str(client.base_url.join("/transcribe"))
        answers = [run(["curl", *options, *upload, *shown, address], tmp_path) for _ in range(5)]

    assert [answer.stdout for answer in answers] == ["401"] * 5


def test_events_come_as_they_happen_and_a_caller_who_leaves_frees_the_work(
    through: Open, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    form = {"audio_file": b"RIFF"}
    with (
        through() as client,
        client.stream(
            "POST", "/transcribe", files=form, headers={"Accept": "text/event-stream"}
        ) as answer,
    ):
        lines = answer.iter_lines()
        while next(lines) != "event: segment":
            pass
        had_ended = transcriber.ended.is_set()

    assert not had_ended
    assert transcriber.ended.wait(WAIT)


def test_wrong_keys_count_for_the_caller(through: Open) -> None:
    # What a caller says of itself is not believed.
    wrong = {"X-API-Key": "wrong", "X-Forwarded-For": "127.0.0.4"}
    with through("127.0.0.2") as guessing, through("127.0.0.3") as other:
        statuses = [guessing.post("/keys/reload", headers=wrong).status_code for _ in range(3)]
        others = other.post("/keys/reload").status_code

    assert statuses == [403, 403, 429]
    assert others == 200


@pytest.mark.parametrize("target", ["http://asr;", "http://asr/;"], ids=["left on", "taken off"])
def test_under_a_path_addresses_lead_back(
    tmp_path: Path, transcriber: FakeTranscriber, target: str
) -> None:
    text = (DEPLOY / "nginx.conf").read_text().replace("location / {", "location /speech/ {")
    text = text.replace("proxy_pass http://asr;", f"proxy_pass {target}")
    with (
        proxied(text, nginx_command, tmp_path, transcriber, root_path="/speech") as through,
        through() as client,
    ):
        submitted = client.post("/speech/jobs", files={"audio_file": b"RIFF"})
        job = client.get(submitted.headers["location"])
        page = client.get("/speech", headers={"Accept": "text/html"}, follow_redirects=True)
        script = client.get("/speech/web/app.js")

    assert submitted.status_code == 202
    assert job.json()["id"] == submitted.json()["id"]
    assert "text/html" in page.headers["content-type"]
    assert str(page.url).endswith("/speech/")
    assert script.status_code == 200


# Small parts -------------------------------------------------------------------------------------


def issue(file: Path) -> ssl.SSLContext:
    """Writes a certificate with its key; the result trusts it."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    pair.write_to_path(file)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return trusting


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def until_it_listens(place: Place, proxy: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT
    while proxy.poll() is None and time.monotonic() < deadline:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", place.port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError((place.home / "proxy.log").read_text(errors="replace"))
