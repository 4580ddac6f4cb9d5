"""One sandbox for all end-to-end tests, and ways to break it, to roll it back and to look at it as a user does."""
from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from ansible_collections.marketsage.rollback.sandbox import scenarios, stack
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, Layout
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Those who test at the same time look for free ports in places of their own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORT_BASES = range(DEFAULT_PORT_BASE + 3000 + 500 * WORKER, DEFAULT_PORT_BASE + 3500 + 500 * WORKER, 50)
POLICY: dict[str, Any] = yaml.safe_load(
    (REPOSITORY / "playbooks/group_vars/all/policy.yml").read_text()
)["rollback_policy"]  # fmt: skip
# For targets that are broken themselves: a gate that sooner gives up.
IMPATIENT = {**POLICY, "gate": {**POLICY["gate"], "timeout": 15}}
GIVING_UP = ("-e", json.dumps({"rollback_policy": IMPATIENT}))
_LONGEST_RUN = 480


def quietly(_line: str) -> None:
    pass


@dataclass(frozen=True)
class Sandbox:
    layout: Layout

    def environment(self, **extra: str) -> dict[str, str]:
        """An operator's; without a browser unless `extra` says otherwise, as each look into one takes seconds."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "ROLLBACK_SANDBOX": str(self.layout.directory), "CHROME_BIN": "", **extra}

    def playbook(self, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run one of the playbooks as an operator would."""
        command = ["ansible-playbook", f"playbooks/{name}.yml", *arguments]
        return self._run(command, self.environment(**extra))

    def rollback(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run the rollback command as an operator would."""
        return self._run(["rollback", *arguments], self.environment(**extra))

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_LONGEST_RUN, start_new_session=True, check=False,
        )  # fmt: skip

    def break_(self, scenario: str) -> None:
        scenarios.break_(self.layout, scenario, quietly)

    def reset(self) -> None:
        stack.reset(self.layout, quietly)

    def answer(self, service: str = "api", path: str = "/api/v2/health") -> httpx.Response:
        headers = {"host": f"{service}.marketsage.com"}
        return httpx.get(f"{self.layout.url('front')}{path}", headers=headers, timeout=10, trust_env=False)

    def balancer(self, command: str) -> None:
        """Give HAProxy a command, as somebody at its console could."""
        assert not self._ask_balancer(command)

    def drained(self) -> list[str]:
        """The backend hosts that HAProxy sends no new requests to because it was told so."""
        rows = [line.split() for line in self._ask_balancer("show servers state api").splitlines()[2:]]
        return [row[3] for row in rows if int(row[6]) & 0x08]

    def _ask_balancer(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.connect(str(self.layout.haproxy / "admin.sock"))
            runtime.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: runtime.recv(65536), b"")).decode().strip()

    def shows_page(self) -> bool:
        return self.answer().headers.get("x-maintenance") == "on"

    def live(self) -> dict[str, str]:
        """The tag that is live on each backend host, by its own history and link."""
        return {host: self.revisions(host)[-1]["ref"] for host in self.layout.hosts}

    def revisions(self, host: str) -> list[dict[str, Any]]:
        lines = (self.layout.host(host) / "revisions.jsonl").read_text().splitlines()
        revisions = [json.loads(line) for line in lines]
        assert (self.layout.host(host) / "current").resolve().name == revisions[-1]["release"]
        return revisions

    def journal(self, host: str) -> list[dict[str, Any]]:
        """Every entry of a host's newest run."""
        directory = self.layout.host(host) / ".rollback" / "journal"
        newest = max(directory.glob("*.jsonl"), default=None)
        return [json.loads(line) for line in newest.read_text().splitlines()] if newest else []

    def ask(self, url: str, question: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as database:
            return database.execute(question, values).fetchall()

    def databases(self) -> list[str]:
        question = "SELECT datname FROM pg_database WHERE datname ~ '^marketsage' ORDER BY 1"
        return [name for (name,) in self.ask(self.layout.admin_database_url, question)]

    def kept_database(self) -> str:
        """The URL of the database that a recovery has put aside."""
        (kept,) = [name for name in self.databases() if "_before_" in name]
        return f"{self.layout.admin_database_url.rpartition('/')[0]}/{kept}"

    def backups(self) -> list[str]:
        """The identifiers of the backups, the newest last."""
        return sorted(manifest.parent.name for manifest in self.layout.backups.glob("*/manifest.json"))

    def holder(self) -> str:
        """The run that holds the lock."""
        return str(json.loads((self.layout.control / "held.json").read_text())["run"])

    def is_locked(self) -> bool:
        return (self.layout.control / "held.json").exists()

    def railway(self) -> dict[str, Any]:
        state: dict[str, Any] = httpx.get(f"{self.layout.url('railway_api')}/_control/state", trust_env=False).json()
        return state


def up_on_free_ports(directory: Path, machines: int = 0) -> Layout:
    """Bring a sandbox up on the first base whose ports are all free."""
    for base in PORT_BASES:
        layout = Layout(directory, base, machines)
        try:
            stack.up(layout, quietly)
        except BadInput:
            continue
        return layout
    pytest.fail("no port base is free")


@pytest.fixture(scope="session")
def running() -> Iterator[Sandbox]:
    # Drills are kept beside their sandbox.
    directory = Path(tempfile.mkdtemp(prefix="rollback-e2e-"))
    layout = up_on_free_ports(directory / "sandbox")
    yield Sandbox(layout)
    stack.down(layout)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """The sandbox as it is after up, whatever the test before did to it."""
    running.reset()
    return running
