"""Connections for callers, over real sockets: the internet is 127.0.0.2, our network the rest."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest

from simple_asr.errors import AddressRefused, AsrError, DownloadFailed, PayloadTooLarge
from simple_asr.service.addresses import AddressRules
from simple_asr.service.outgoing import DownloadLimits, Outgoing, Resolve, lookup
from tests.listener import Listener, listening, ok, redirect, status
from tests.support import WAIT

pytestmark = pytest.mark.anyio

INTERNET = "127.0.0.2"
LIMITS = DownloadLimits(max_bytes=1000, timeout=WAIT, idle_seconds=WAIT)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def internet() -> AsyncIterator[Listener]:
    async with listening(INTERNET) as listener:
        yield listener


@pytest.fixture
async def canary(internet: Listener) -> AsyncIterator[Listener]:
    """Nobody may ever connect to it. On the same port, so that only the address tells."""
    async with listening("127.0.0.1", internet.port) as listener:
        listener.answers = dict.fromkeys(("/", "/a"), ok(b"secret"))
        yield listener
    assert listener.num_connections == 0


def resolver(*answers: list[str]) -> Resolve:
    """Gives one answer after another, the last for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def outgoing(
    internet: Listener, resolve: Resolve | None = None, context: ssl.SSLContext | None = None
) -> Outgoing:
    rules = AddressRules(frozenset({internet.port}), (ip_network(f"{INTERNET}/32"),))
    return Outgoing(rules, resolve or resolver([INTERNET]), context)


async def download(
    asking: Outgoing, url: str, limits: DownloadLimits = LIMITS, received: bytearray | None = None
) -> bytes:
    received = bytearray() if received is None else received

    async def write(data: bytes) -> None:
        received.extend(data)

    await asking.download(asking.rules.checked_url(url), write, limits)
    return bytes(received)


async def test_a_file_is_downloaded(internet: Listener) -> None:
    internet.answers["/a"] = ok(b"RIFF")

    got = await download(outgoing(internet), f"http://files.example:{internet.port}/a?b=c")

    [heard] = internet.heard
    assert got == b"RIFF"
    assert heard.line == "GET /a?b=c HTTP/1.1"
    assert heard.headers["host"] == f"files.example:{internet.port}"
    assert heard.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"],  # noqa: S104
)
async def test_our_own_network_is_never_connected_to(
    internet: Listener, canary: Listener, host: str
) -> None:
    asking = Outgoing(outgoing(internet).rules)

    with pytest.raises(AddressRefused):
        await download(asking, f"http://{host}:{internet.port}/a")


async def test_one_address_of_ours_among_a_names_is_enough_to_refuse_it(
    internet: Listener, canary: Listener
) -> None:
    asking = outgoing(internet, resolver([INTERNET, "127.0.0.1"]))

    with pytest.raises(AddressRefused):
        await download(asking, f"http://mixed.example:{internet.port}/a")

    assert internet.num_connections == 0


async def test_a_name_that_changes_its_address_is_looked_up_once(
    internet: Listener, canary: Listener
) -> None:
    internet.answers["/a"] = ok(b"RIFF")
    asking = outgoing(internet, resolver([INTERNET], ["127.0.0.1"]))

    got = await download(asking, f"http://rebinding.example:{internet.port}/a")

    assert got == b"RIFF"


async def test_a_name_that_changes_its_address_between_redirects_is_checked_again(
    internet: Listener, canary: Listener
) -> None:
    internet.answers["/a"] = redirect("/a")
    asking = outgoing(internet, resolver([INTERNET], ["127.0.0.1"]))

    with pytest.raises(AddressRefused):
        await download(asking, f"http://rebinding.example:{internet.port}/a")

    assert internet.num_connections == 1


async def test_redirects_are_followed(internet: Listener) -> None:
    internet.answers = {"/a": redirect("b"), "/b": redirect("/c"), "/c": redirect("/d?e")}
    internet.answers["/d"] = ok(b"RIFF")

    got = await download(outgoing(internet), f"http://files.example:{internet.port}/a")

    assert got == b"RIFF"
    assert internet.num_connections == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/a",
        "//127.0.0.1:{port}/a",
        "http://0x7f000001:{port}/a",
        "http://[::ffff:127.0.0.1]:{port}/a",
        "http://files.example:1/a",
        "file:///etc/passwd",
        "gopher://files.example:{port}/_GET",
        "http://alice:secret@files.example:{port}/a",
    ],
)
async def test_a_redirect_is_checked_as_an_address_is(
    internet: Listener, canary: Listener, location: str
) -> None:
    internet.answers["/a"] = redirect(location.format(port=internet.port))
    asking = Outgoing(outgoing(internet).rules)

    with pytest.raises(AddressRefused) as refused:
        await download(asking, f"http://{INTERNET}:{internet.port}/a")

    assert "secret" not in refused.value.detail


async def test_a_redirect_to_what_is_no_address_is_told(internet: Listener) -> None:
    internet.answers["/a"] = redirect("http:////]?x")

    with pytest.raises(DownloadFailed, match="redirects to what is no address"):
        await download(outgoing(internet), f"http://{INTERNET}:{internet.port}/a")


async def test_names_that_take_long_to_look_up_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()

    def never_answers(*_: object, **__: object) -> list[object]:
        is_over.wait(WAIT)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never_answers)

    asking = [asyncio.create_task(lookup("slow.example", 80)) for _ in range(100)]
    await asyncio.wait_for(asyncio.to_thread(int), WAIT / 2)

    is_over.set()
    assert await asyncio.gather(*asking) == [[]] * 100


async def test_redirects_come_to_an_end(internet: Listener) -> None:
    internet.answers["/a"] = redirect("/a")

    with pytest.raises(DownloadFailed, match="follows 3 redirects"):
        await download(outgoing(internet), f"http://files.example:{internet.port}/a")

    assert internet.num_connections == 4


async def hangs(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    """A header without an end, byte by byte."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(100))
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "limits", "kind", "text"),
    [
        (status("404 Not Found"), LIMITS, DownloadFailed, "answered 404"),
        (status("500 Oh"), LIMITS, DownloadFailed, "answered 500"),
        (status("304 Not Modified"), LIMITS, DownloadFailed, "answered 304"),
        (ok(b"a", "Content-Encoding: gzip"), LIMITS, DownloadFailed, "compressed"),
        (ok(bytes(1001)), LIMITS, PayloadTooLarge, "1000 bytes"),
        (endless, LIMITS, PayloadTooLarge, "1000 bytes"),
        (ok(bytes(900))[:-1], LIMITS, DownloadFailed, "broke the connection off"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", LIMITS, DownloadFailed, "speaks no HTTP"),
        (b"", LIMITS, DownloadFailed, "broke the connection off"),
        (redirect("http://[::"), LIMITS, DownloadFailed, "no address"),
        (hangs, DownloadLimits(1000, WAIT, 0.1), DownloadFailed, "stopped sending"),
        (drips, DownloadLimits(1000, 0.2, WAIT), DownloadFailed, "longer than 0.2 s"),
    ],
)
async def test_what_cannot_be_had_is_told_without_the_secrets_of_its_address(
    internet: Listener,
    answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
    limits: DownloadLimits,
    kind: type[AsrError],
    text: str,
) -> None:
    internet.answers["/private"] = answer
    url = f"http://files.example:{internet.port}/private?signature=secret"

    with pytest.raises(kind, match=text) as failed:
        await download(outgoing(internet), url, limits)

    assert "secret" not in failed.value.detail
    assert "private" not in failed.value.detail


async def test_no_byte_beyond_the_limit_is_written(internet: Listener) -> None:
    internet.answers["/a"] = endless
    received = bytearray()
    url = f"http://files.example:{internet.port}/a"

    with pytest.raises(PayloadTooLarge):
        await download(outgoing(internet), url, received=received)

    assert len(received) <= LIMITS.max_bytes


async def test_the_next_address_is_tried_where_the_first_is_dead(internet: Listener) -> None:
    internet.answers["/a"] = ok(b"RIFF")
    rules = AddressRules(frozenset({internet.port}), (ip_network("127.0.0.0/30"),))
    asking = Outgoing(rules, resolver(["127.0.0.3", INTERNET]))

    got = await download(asking, f"http://files.example:{internet.port}/a")

    assert got == b"RIFF"


@pytest.mark.parametrize("failure", [OSError("no such name"), UnicodeError("no such label")])
async def test_a_name_nobody_knows_is_told(internet: Listener, failure: Exception) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise failure

    url = f"http://files.example:{internet.port}/a"

    with pytest.raises(DownloadFailed, match="cannot be reached"):
        await download(outgoing(internet, resolve), url)


# TLS ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of its own for files.example, with its private key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=files.example", "-addext", "subjectAltName=DNS:files.example"),
            *("-keyout", file.with_suffix(".key"), "-out", file.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.with_suffix(".key").read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.mark.parametrize(("host", "is_taken"), [("files.example", True), ("other.example", False)])
async def test_the_certificate_is_checked_against_the_name_not_the_address(
    certificate: Path, host: str, is_taken: bool
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    async with listening(INTERNET, context=server) as internet:
        internet.answers["/a"] = ok(b"RIFF")
        url = f"https://{host}:{internet.port}/a"

        downloading = download(outgoing(internet, context=trusting), url)

        if is_taken:
            assert await downloading == b"RIFF"
        else:
            with pytest.raises(DownloadFailed, match="certificate"):
                await downloading
            assert internet.heard == []


async def test_requests_have_a_body_and_headers(internet: Listener) -> None:
    internet.answers["/hook"] = status("204 No Content")
    asking = outgoing(internet)
    url = httpx2.URL(f"http://files.example:{internet.port}/hook")

    async with asking.request(
        "POST", url, {b"Webhook-Id": b"1"}, b"{}", idle_seconds=WAIT
    ) as response:
        answered = response.status

    assert answered == 204
    assert (internet.heard[0].headers["webhook-id"], internet.heard[0].body) == ("1", b"{}")
