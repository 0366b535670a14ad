"""A browser's part of HTTP, over a connection that the test holds in its hand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.cluster_material import Authority, Leaf


class Answer(NamedTuple):
    status: int
    headers: str
    body: str


class Connection:
    """One connection, on which requests follow one another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self._writer = writer
        self.host = host

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """The answer; ConnectionError when the other end closes instead."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        await self._writer.drain()
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("closed without an answer") from error
        length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("Content-Length")), 0)
        return Answer(int(head.split()[1]), head, (await self.reader.readexactly(length)).decode(errors="replace"))


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Connection]:
    """A connection, over TLS when there is a context."""
    name = "127.0.0.1" if context else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    try:
        yield Connection(reader, writer, f"127.0.0.1:{port}")
    finally:
        writer.close()


def visitor(
    authority: Authority, leaf: Leaf | None, directory: Path, trusted: Authority | None = None
) -> ssl.SSLContext:
    """A browser's context: it checks the server's name, and holds the certificate of `leaf`."""
    files = authority.files(leaf or authority.revoked, directory)
    ca = (trusted or authority).files(authority.revoked, directory / "trusted").ca
    context = ssl.create_default_context(cafile=ca)
    if leaf is not None:
        context.load_cert_chain(files.cert, files.key)
    return context
