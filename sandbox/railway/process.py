"""One deployment's process: a standalone Next.js server on a free port of its own."""
from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from pathlib import Path

import httpx

HEALTH_PATH = "/api/health"
_INHERITED = ("PATH", "HOME", "MARKETSAGE_SANDBOX_PROCESS")
_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5
_libc = ctypes.CDLL(None)


class Server:
    """A running server. It dies with the emulator, however that ends."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, image: Path, environment: dict[str, str], log: Path) -> Server:
        port = _free_port()
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # Next.js takes rewrites to another host name than `localhost` for external ones.
        own = {"PORT": str(port), "HOSTNAME": "localhost", "NODE_ENV": "production"}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                "node",
                "server.js",
                cwd=image,
                env={**inherited, **environment, **own},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(process, port)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exited(self) -> bool:
        return self.process.returncode is not None

    async def becomes_healthy(self, seconds: float) -> bool:
        """Whether the health check answers 200 within `seconds`; False at once when the process exits."""
        end = asyncio.get_running_loop().time() + seconds
        async with httpx.AsyncClient(base_url=f"http://localhost:{self.port}", timeout=2, trust_env=False) as client:
            while not self.exited and asyncio.get_running_loop().time() < end:
                if await _answers_200(client):
                    return True
                await asyncio.sleep(0.05)
        return False

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when that is not enough."""
        if self.exited:
            return
        os.killpg(self.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            os.killpg(self.pid, signal.SIGKILL)
            await self.process.wait()


async def _answers_200(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get(HEALTH_PATH)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _free_port() -> int:
    # With fixed ports a stray process could pass the health check for its successor.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
