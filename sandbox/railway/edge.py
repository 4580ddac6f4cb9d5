"""The edge: relays each request to the deployment that is live when it arrives."""
from __future__ import annotations

import asyncio
import contextlib
import re

from ansible_collections.marketsage.rollback.sandbox.railway.platform import Deployment, Platform

_CONNECTION_HEADER = re.compile(rb"\r\n(?:connection|keep-alive):[^\r\n]*", re.IGNORECASE)
_HEAD_SECONDS = 60


class Edge:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._open: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection, which carries one request."""
        self._open.add(asyncio.current_task())
        try:
            await self._serve(reader, writer)
        finally:
            self._open.discard(asyncio.current_task())
            writer.close()

    def close(self) -> None:
        """Cut the connections that are still open."""
        for task in self._open:
            if task:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            await self._relay(_single_request(head), reader, writer)

    async def _relay(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        live = self._platform.live
        if live is None:
            await _fall_back(writer, "404 Not Found")
            return
        live.relays += 1
        try:
            await _exchange(live, head, reader, writer)
        except ConnectionRefusedError:
            await _fall_back(writer, "502 Bad Gateway")
        finally:
            live.relays -= 1


def _single_request(head: bytes) -> bytes:
    """The request, its connection to end after it: a kept one would go on reaching what is no longer live."""
    return _CONNECTION_HEADER.sub(b"", head)[:-2] + b"connection: close\r\n\r\n"


async def _exchange(live: Deployment, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert live.server
    answer, request = await asyncio.open_connection("localhost", live.server.port)
    request.write(head)
    upload = asyncio.create_task(_copy(reader, request))
    try:
        await _copy(answer, writer)
    finally:
        upload.cancel()
        request.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


async def _fall_back(writer: asyncio.StreamWriter, status: str) -> None:
    head = (f"HTTP/1.1 {status}", "x-railway-fallback: true", "content-length: 0", "connection: close")
    writer.write("\r\n".join((*head, "", "")).encode())
    await writer.drain()
