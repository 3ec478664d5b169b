"""Connects for callers: only to addresses that the rules allow, and to the very one checked.

What is allowed is decided in `addresses.py`. Proxies of the environment are not used: they would
look names up once more, where nobody checks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import anyio
import httpcore2
import httpx2

from simple_asr.errors import DownloadFailed, PayloadTooLarge
from simple_asr.service.addresses import AddressRules, origin

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host name, in the order to try them. Raises OSError."""
Write = Callable[[bytes], Awaitable[None]]

MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_SECONDS = 10.0
# Of one name's addresses: a caller's name may have thousands.
MAX_ADDRESSES = 8
USER_AGENT = b"simple-asr"
DOWNLOAD_HEADERS = {b"Accept": b"*/*", b"Accept-Encoding": b"identity"}
SEND_IT = "Or send the file itself."
CONNECTION_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    ssl.SSLError,
)


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bytes of one file, seconds for all of it, and seconds of silence in between."""

    max_bytes: int
    timeout: float = 600.0
    idle_seconds: float = 30.0


# A name may be looked up for as long as its owner pleases: not on the threads all else is done on.
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="asr-lookup")


async def lookup(host: str, port: int) -> list[str]:
    """As the machine's resolver has it."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, ask)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Looks a name up once, has all its addresses checked, and connects to one of those.

    TLS is told the name by httpcore, and checks the certificate against it.
    """

    def __init__(self, rules: AddressRules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore calls it so
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises AddressRefused where any of the addresses is not allowed, ConnectError."""
        failure: Exception = httpcore2.ConnectError("The name has no address.")
        with anyio.move_on_after(timeout):
            for address in await self._checked(host, port):
                try:
                    return await self._network.connect_tcp(
                        address, port, timeout, local_address, socket_options
                    )
                except httpcore2.ConnectError as error:  # noqa: PERF203 - the next may answer
                    failure = error
        raise failure

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError("The name could not be looked up.") from error
        for address in addresses:
            self._rules.check_address(address)
        return addresses[:MAX_ADDRESSES]


class Outgoing:
    """Requests to addresses that callers name. `resolve` and `ssl_context` are the machine's own
    unless given.
    """

    def __init__(
        self,
        rules: AddressRules,
        resolve: Resolve = lookup,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.rules = rules
        self._network = GuardedNetwork(rules, resolve)
        self._given_ssl_context = ssl_context

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[bytes, bytes],
        content: bytes | None = None,
        *,
        idle_seconds: float,
    ) -> AsyncIterator[httpcore2.Response]:
        """The answer of a connection of its own; redirects are answers too.

        Raises AddressRefused, and CONNECTION_ERRORS.
        """
        seconds = {"read": idle_seconds, "write": idle_seconds}
        async with (
            httpcore2.AsyncConnectionPool(
                ssl_context=self._ssl_context, network_backend=self._network
            ) as pool,
            pool.stream(
                method,
                httpcore2.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=[(b"Host", url.netloc), (b"User-Agent", USER_AGENT), *headers.items()],
                content=content,
                extensions={"timeout": {"connect": CONNECT_SECONDS, **seconds}},
            ) as response,
        ):
            yield response

    async def download(self, url: httpx2.URL, write: Write, limits: DownloadLimits) -> None:
        """Has every part of the file written as it comes; redirects are followed, and checked.

        Raises AddressRefused, DownloadFailed, PayloadTooLarge, and what `write` raises.
        """
        try:
            with anyio.fail_after(limits.timeout):
                await self._follow(url, write, limits)
        except TimeoutError:
            raise DownloadFailed(
                f"The file took longer than {limits.timeout:g} s (DOWNLOAD_TIMEOUT_SECONDS). "
                f"{SEND_IT}"
            ) from None

    async def _follow(self, url: httpx2.URL, write: Write, limits: DownloadLimits) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            location = await self._get(url, write, limits)
            if location is None:
                return
            url = self.rules.checked_url(_joined(url, location))
        raise DownloadFailed(
            f"The address leads on and on; this server follows {MAX_REDIRECTS} redirects. Give the "
            "address of the file itself."
        )

    async def _get(self, url: httpx2.URL, write: Write, limits: DownloadLimits) -> str | None:
        """Writes the file, or says where it is instead."""
        asking = self.request("GET", url, DOWNLOAD_HEADERS, idle_seconds=limits.idle_seconds)
        try:
            async with asking as response:
                headers = {name.lower(): value for name, value in response.headers}
                if response.status in REDIRECTS and b"location" in headers:
                    return headers[b"location"].decode("latin-1")
                _check_answer(response.status, headers, url, limits)
                received = 0
                async for chunk in response.aiter_stream():
                    received += len(chunk)
                    if received > limits.max_bytes:
                        raise _too_large(limits)
                    await write(chunk)
        except CONNECTION_ERRORS as error:
            raise DownloadFailed(
                f"{origin(url)} {_what_happened(error)} Check the address. {SEND_IT}"
            ) from error
        return None

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        """Made when it is needed first: it reads every certificate the machine trusts."""
        return self._given_ssl_context or httpcore2.default_ssl_context()


def _joined(url: httpx2.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx2.InvalidURL, ValueError):  # The latter of an address in brackets.
        raise DownloadFailed(f"{origin(url)} redirects to what is no address. {SEND_IT}") from None


def _check_answer(
    status: int, headers: Mapping[bytes, bytes], url: httpx2.URL, limits: DownloadLimits
) -> None:
    """Raises DownloadFailed, PayloadTooLarge."""
    if status != 200:
        raise DownloadFailed(f"{origin(url)} answered {status}. Check the address. {SEND_IT}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise DownloadFailed(
            f"{origin(url)} sends the file compressed, though asked not to. {SEND_IT}"
        )
    # A length that is no number is httpcore's to refuse.
    if int(headers.get(b"content-length", b"0")) > limits.max_bytes:
        raise _too_large(limits)


def _too_large(limits: DownloadLimits) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The file has more than {limits.max_bytes} bytes, the most this server takes "
        "(MAX_UPLOAD_BYTES). Compress it (Opus, MP3), or split it."
    )


def _what_happened(error: Exception) -> str:
    """Not the error's own text, which may repeat what a stranger's server sent."""
    if isinstance(error, (httpcore2.ConnectError, httpcore2.ConnectTimeout)):
        return "cannot be reached, or is not who its certificate should say."
    if isinstance(error, httpcore2.TimeoutException):
        return "stopped sending."
    return "broke the connection off, or speaks no HTTP."
