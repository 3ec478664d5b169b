"""An HTTP server that answers what a test tells it to, and counts who connects."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Heard:
    """One request: its first line, its headers by their names in lower case, and its body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Listener:
    """`answers` are by path: bytes as they go over the wire, or a function that writes them."""

    address: str = ""
    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    num_connections: int = 0
    heard: list[Heard] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            lines = [line.split(": ", 1) for line in head[1:] if line]
            headers = {name.lower(): value for name, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.heard.append(Heard(head[0], headers, body))
            answer = self.answers[head[0].split(" ")[1].partition("?")[0]]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def ok(body: bytes, *headers: str) -> bytes:
    return _answer("200 OK", f"Content-Length: {len(body)}", *headers) + body


def status(line: str) -> bytes:
    return _answer(line, "Content-Length: 0")


def redirect(location: str) -> bytes:
    return _answer("302 Found", f"Location: {location}", "Content-Length: 0")


def _answer(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", *headers, "", ""]).encode()


@asynccontextmanager
async def listening(
    address: str = "127.0.0.2", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[Listener]:
    """One that listens until the context ends."""
    listener = Listener(address)
    server = await asyncio.start_server(listener.serve, address, port, ssl=context)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
