"""Where everything of one sandbox is: paths below its directory, ports counted from its base."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Drills, molecule and tests count theirs from it too, so that two checkouts can be tested side by side.
DEFAULT_PORT_BASE = int(os.environ.get("ROLLBACK_PORT_BASE", "24000"))
HOSTS = ("api-1", "api-2")
_LONGEST_SOCKET = "hosts/api-1/.pm2/interactor.sock"
_SOCKET_PATH_LIMIT = 107
# Where the API listens on a machine of its own, and its first worker's metrics.
MACHINE_PORT = 3000
MACHINE_METRICS_PORT = 3100
_PORTS_OF_ONE = 50


def default_directory() -> Path:
    """The sandbox that commands mean when none is named: $ROLLBACK_SANDBOX, else one per user."""
    if named := os.environ.get("ROLLBACK_SANDBOX"):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "marketsage.rollback" / "sandbox"


def cache_directory() -> Path:
    """Builds and packages that every sandbox of this user shares: $ROLLBACK_CACHE, else one per user."""
    if named := os.environ.get("ROLLBACK_CACHE"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "marketsage.rollback"


@dataclass(frozen=True)
class Layout:
    """Paths and ports of one sandbox; inventories/sandbox computes the same ones.

    Its backend hosts are two directories, or as many `machines` as are asked for, each with a network of its own.
    """

    directory: Path
    port_base: int = DEFAULT_PORT_BASE
    machines: int = 0

    def __post_init__(self) -> None:
        if len(str(self.directory / _LONGEST_SOCKET)) > _SOCKET_PATH_LIMIT:
            room = _SOCKET_PATH_LIMIT - len(_LONGEST_SOCKET) - 1
            raise ValueError(f"directory: {self.directory} is too long for Unix sockets; use at most {room} characters")

    @classmethod
    def existing(cls, directory: Path) -> Layout:
        """The layout of a sandbox that was brought up in `directory`; FileNotFoundError where none was."""
        machines = directory / "machines"
        count = int(machines.read_text()) if machines.exists() else 0
        return cls(directory, int((directory / "port_base").read_text()), count)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the backend hosts."""
        return tuple(f"api-{number}" for number in range(1, self.machines + 1)) or HOSTS

    def port(self, name: str) -> int:
        """The port of one part, by its name in PORTS."""
        return self.port_base + PORTS[name]

    def url(self, name: str) -> str:
        if self.machines and name in self.hosts:
            return f"http://{self.address(name)}:{MACHINE_PORT}"
        return f"http://127.0.0.1:{self.port(name)}"

    def metrics(self, host: str) -> list[str]:
        """Where the two workers of a backend host are scraped, as ADDRESS:PORT."""
        address = self.address(host) if self.machines else "127.0.0.1"
        first = MACHINE_METRICS_PORT if self.machines else self.port(f"{host}-metrics")
        return [f"{address}:{first}", f"{address}:{first + 1}"]

    @property
    def network(self) -> str:
        """The first three numbers of the machines' addresses, which no other sandbox has."""
        block = self.port_base // _PORTS_OF_ONE
        return f"10.{200 + block // 250}.{block % 250}"

    @property
    def gateway(self) -> str:
        """This machine's own address in that network."""
        return f"{self.network}.1"

    def address(self, host: str) -> str:
        """The address of a machine."""
        return f"{self.network}.{10 + self.hosts.index(host) + 1}"

    @property
    def ssh(self) -> Path:
        """Keys, known hosts and configuration to log in to the machines with."""
        return self.directory / "ssh"

    @property
    def inventory(self) -> Path:
        """The inventory of a sandbox with machines."""
        return self.directory / "inventory"

    def host(self, name: str) -> Path:
        """The directory that stands for one backend host."""
        return self.directory / "hosts" / name

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    @property
    def allowed_signers(self) -> Path:
        """Whose approvals count, by the public key."""
        return self.secrets / "allowed_signers"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def pids(self) -> Path:
        """One file for each part that stays: its process id."""
        return self.directory / "pids"

    @property
    def origin(self) -> Path:
        return self.directory / "origin"

    @property
    def haproxy(self) -> Path:
        return self.directory / "haproxy"

    @property
    def workshop(self) -> Path:
        """Where the control side builds frontends."""
        return self.directory / "workshop"

    @property
    def prometheus(self) -> Path:
        """Its configuration and data; not there where no Prometheus is to be had."""
        return self.directory / "prometheus"

    @property
    def alertmanager(self) -> Path:
        """Its configuration and data; not there where no Alertmanager is to be had."""
        return self.directory / "alertmanager"

    @property
    def monitoring(self) -> Path:
        """The monitoring host: the checkout with the compose project, its data, and what the host needs for it."""
        return self.directory / "monitoring"

    @property
    def maintenance_map(self) -> Path:
        return self.haproxy / "maintenance.map"

    @property
    def servers_state(self) -> Path:
        """The servers that stay drained when HAProxy is reloaded."""
        return self.haproxy / "servers.state"

    @property
    def control(self) -> Path:
        """The rollback's own state on the control host: lock, fencing number, marks, runs."""
        return self.directory / "control"

    @property
    def marks(self) -> Path:
        """Which commits are known good or bad, by service."""
        return self.control / "marks.json"

    @property
    def database_url(self) -> str:
        """The application's, whose role owns the database and nothing else."""
        return self.database_url_at("127.0.0.1")

    def database_url_at(self, address: str) -> str:
        return f"postgresql://marketsage@{address}:{self.port('postgres')}/marketsage"

    @property
    def admin_database_url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port('postgres')}/marketsage"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"


PORTS = {
    "front": 0,
    "haproxy_stats": 1,
    "postgres": 5,
    "redis": 6,
    "railway_api": 7,
    "railway_edge": 8,
    "sink": 9,
    "api-1": 10,
    "api-1-metrics": 11,
    "api-2": 20,
    "api-2-metrics": 21,
    "prometheus": 30,
    "monitoring": 31,
    "dashboards": 32,
    "alertmanager": 33,
    "alerts": 34,
}


def directory_beside(sandbox: Path) -> Path:
    """Where drills have their own sandbox, so that the user's is left alone."""
    return sandbox.with_name("drill")


def records_beside(sandbox: Path) -> Path:
    """Where the records of drills are kept when their sandbox is gone."""
    return sandbox.with_name("drills")
