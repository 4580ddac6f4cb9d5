"""A sandbox as a whole: brought up from nothing, put back as it was, looked at, taken down."""
from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from ansible_collections.marketsage.rollback.sandbox import (
    build,
    containers,
    deploy,
    machines,
    origins,
    people,
    processes,
    seed,
    servers,
)
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS, PORTS, Layout
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput, SandboxError
from ansible_collections.marketsage.rollback.sandbox.state import parts

# What production has been through before anything goes wrong: each was deployed and turned out well.
HISTORY = ("v1.0.0", "v1.1.0")
SERVICES = ("backend", "frontend")
_SECRETS = (
    "railway_account_token", "railway_project_token", "jwt_secret", "session_secret", "smoke_password",
    "slack_token", "twilio_token", "pagerduty_key", "hook_token", "alerts_token",
)  # fmt: skip
_SLACK_WEBHOOKS = ("team", "standard")
_HEALTHY_SECONDS = 30
# PostgreSQL asked by SIGTERM waits for its clients.
_ENDED_BY = {"postgres": signal.SIGINT}

Say = Callable[[str], None]


def up(layout: Layout, say: Say) -> bool:
    """Bring a sandbox up; False when it is up already. SandboxError when neither, and then nothing runs."""
    if layout.directory.exists() and _is_up(layout):
        return False
    _refuse_taken_ports(layout)
    if layout.machines:
        machines.refuse_impossible(layout.machines)
    _make_directory(layout)
    try:
        if layout.machines:
            machines.make_network(layout)
        _bring_up(layout, say)
    except BaseException:
        end_processes(layout)
        raise
    return True


def _is_up(layout: Layout) -> bool:
    """Whether every part runs; SandboxError when only some do."""
    if not any(layout.directory.iterdir()):
        return False
    if not (layout.directory / "port_base").exists():
        raise BadInput(f"directory: {layout.directory} is not empty and holds no sandbox; name another one")
    existing = at(layout.directory)
    if not processes.survivors(existing):
        return False
    _require(existing, parts(existing))
    return True


def at(directory: Path) -> Layout:
    """The sandbox in a directory; BadInput when there is none."""
    try:
        return Layout.existing(directory)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadInput(f"directory: {directory} holds no sandbox") from None


def running(directory: Path) -> Layout:
    """The sandbox in a directory with every part of it running; SandboxError when it is not so."""
    layout = at(directory)
    _require(layout, parts(layout))
    return layout


def _require(layout: Layout, wanted: Iterable[str]) -> None:
    there = {"prometheus": layout.prometheus.exists(), "alertmanager": layout.alertmanager.exists()}
    expected = {part for part in wanted if there.get(part, True)}
    if ended := [part for part in parts(layout) if part in expected and processes.find(layout, part) is None]:
        raise SandboxError(f"{layout.directory}: {', '.join(ended)} not running; run: rollback sandbox down, then up")


def _refuse_taken_ports(layout: Layout) -> None:
    taken = [f"{port} ({name})" for name, port in ports(layout).items() if is_taken(port)]
    if taken:
        raise BadInput(f"port-base: in use already: {', '.join(taken)}; name another base with --port-base")


def ports(layout: Layout) -> dict[str, int]:
    """Every port of a sandbox by what listens on it."""
    second_workers = {f"{host}-metrics of worker 1": layout.port(f"{host}-metrics") + 1 for host in HOSTS}
    return {**{name: layout.port(name) for name in PORTS}, **second_workers}


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _make_directory(layout: Layout) -> None:
    """An empty directory with secrets; what a sandbox that no longer runs has left there goes away."""
    if layout.directory.exists():
        shutil.rmtree(layout.directory)
    layout.directory.mkdir(parents=True, mode=0o700)
    (layout.directory / "port_base").write_text(f"{layout.port_base}\n")
    if layout.machines:
        (layout.directory / "machines").write_text(f"{layout.machines}\n")
    for directory in (layout.secrets, layout.logs, layout.pids, layout.control, layout.origin):
        directory.mkdir(mode=0o700)
    for name in _SECRETS:
        deploy.write_private(layout.secrets / name, secrets.token_urlsafe(24) + "\n")
    people.make_keys(layout)
    deploy.write_private(layout.secrets / "redis_url", f"redis://127.0.0.1:{layout.port('redis')}/0\n")
    deploy.write_private(layout.secrets / "database_url", f"{layout.database_url}?schema=public\n")
    deploy.write_private(layout.secrets / "admin_database_url", f"{layout.admin_database_url}\n")
    (layout.directory / "postgres_bin").write_text(str(Path(servers.postgres_tool("pg_dump")).parent))
    for name in _SLACK_WEBHOOKS:
        url = f"{layout.url('sink')}/services/T0SANDBOX/{name.upper()}/{secrets.token_urlsafe(18)}"
        deploy.write_private(layout.secrets / f"slack_{name}_url", f"{url}\n")


def _bring_up(layout: Layout, say: Say) -> None:
    origins.create(layout.origin)
    say("origins with their histories")
    starts = {
        "PostgreSQL runs": servers.start_postgres,
        "Redis runs": servers.start_redis,
        "HAProxy runs": servers.start_haproxy,
        "Railway runs": servers.start_railway,
        "the sink runs": servers.start_sink,
        "Alertmanager runs": servers.start_alertmanager,
        "Prometheus runs": servers.start_prometheus,
    }
    _side_by_side(layout, say, starts)
    build.prebuild(layout.origin, {service: list(HISTORY) for service in SERVICES})
    say("releases are built")
    _side_by_side(layout, say, {"the backend is live": _ship_backend, "the frontend is live": _ship_frontend})
    _write_marks(layout)
    _wait_until_healthy(layout)
    say("healthy through HAProxy")
    seed.fill(layout)
    say("contacts, sessions and other keys are there")


def _side_by_side(layout: Layout, say: Say, works: Mapping[str, Callable[[Layout], str | None]]) -> None:
    """Do all of `works` at the same time, telling each as it is done, or what it has to tell; any failure is raised."""

    def do(what: str) -> None:
        say(works[what](layout) or what)

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(do, works))


def _ship_backend(layout: Layout) -> None:
    deploy.make_hosts(layout)
    *past, live = HISTORY
    for ref in past:
        deploy.leave_traces(layout, build.release(layout.origin, "backend", ref))
    deploy.deploy(layout, "backend", live)


def _ship_frontend(layout: Layout) -> None:
    deploy.make_workshop(layout)
    for ref in HISTORY:
        deploy.deploy(layout, "frontend", ref)
    (layout.directory / "frontend.json").write_text(json.dumps(_frontend(layout)))


def _frontend(layout: Layout) -> dict[str, Any] | None:
    """What is other once somebody has built, deployed, rolled back, switched or broken anything of the frontend."""
    answer = servers.ask(layout.url("railway_api") + "/_control/state")
    if answer is None:
        return None
    state = answer.json()
    processes_by_deployment = {one["id"]: one["pid"] for one in state["deployments"]}
    return {
        **{name: state[name] for name in ("live", "faults", "mutations")},
        "deployments": list(processes_by_deployment),
        "process": processes_by_deployment.get(state["live"]),
        "built": sorted(entry.name for entry in (layout.workshop / "releases").iterdir()),
    }


def _write_marks(layout: Layout) -> None:
    """Mark what production has had as good."""
    good = {"mark": "good", "time": deploy.now(), "by": "deploy", "reason": "healthy after its deploy"}
    marks = {
        service: {build.release(layout.origin, service, ref).commit: good for ref in HISTORY} for service in SERVICES
    }
    deploy.write_private(layout.marks, json.dumps(marks, indent=2) + "\n")


def _wait_until_healthy(layout: Layout) -> None:
    processes.wait_until(layout, "haproxy", lambda: everything_answers(layout), _HEALTHY_SECONDS)


def everything_answers(layout: Layout) -> bool:
    """Whether every path to a health check answers 200: through HAProxy, and each backend host by itself."""
    front = layout.url("front")
    through_front = [("api", "/api/v2/health/db"), ("api", "/api/v2/health/redis")]
    through_front += [("app", "/api/health"), ("admin", "/"), ("app", "/api/proxy/health")]
    targets = [(f"{front}{path}", {"host": f"{service}.marketsage.com"}) for service, path in through_front]
    targets += [(f"{layout.url(host)}/api/v2/health", {}) for host in layout.hosts]
    answers = (servers.ask(url, headers) for url, headers in targets)
    return all(answer is not None and answer.status_code == httpx.codes.OK for answer in answers)


def reset(layout: Layout, say: Say) -> None:
    """Put a sandbox back as `up` leaves it: releases, deployments, data, marks, no maintenance."""
    _require(layout, set(parts(layout)) - {*layout.hosts, "railway"})
    _reset_control(layout)
    containers.down(layout)
    servers.put_balancer_back(layout)
    servers.reload_haproxy(layout)
    works = {"the backend is as it was": _reset_backend, "the frontend is as it was": _reset_frontend}
    _side_by_side(layout, say, works)
    _wait_until_healthy(layout)
    seed.fill_redis(layout)
    say("healthy through HAProxy")


def _reset_backend(layout: Layout) -> None:
    for host in layout.hosts:
        _end_host(layout, host)
        shutil.rmtree(layout.host(host))
    seed.restore_database(layout)
    _ship_backend(layout)


def _end_host(layout: Layout, host: str) -> None:
    # pm2 asked to end takes as long as its slowest worker may.
    processes.stop(layout, host, signal.SIGKILL)


def _reset_frontend(layout: Layout) -> None:
    shipped = layout.directory / "frontend.json"
    if shipped.exists() and _frontend(layout) == json.loads(shipped.read_text()):
        return
    processes.stop(layout, "railway")
    shutil.rmtree(layout.workshop)
    servers.start_railway(layout)
    _ship_frontend(layout)


def _reset_control(layout: Layout) -> None:
    # A courier may be writing into it: what it has no longer a path to, it leaves alone.
    old = layout.control.rename(layout.control.with_name("control.old"))
    shutil.rmtree(old)
    shutil.rmtree(layout.backups, ignore_errors=True)
    layout.control.mkdir(mode=0o700)
    _write_marks(layout)


def down(layout: Layout, keep: bool = False) -> int:
    """End every process of a sandbox and remove its directory, unless told to keep it; how many there were."""
    ended = end_processes(layout)
    if not keep:
        shutil.rmtree(layout.directory)
    return ended


def end_processes(layout: Layout) -> int:
    """End every process of a sandbox, and prove by reading that none is left; how many there were."""
    containers.down(layout)
    running = len(processes.survivors(layout))
    for part in parts(layout):
        if part in layout.hosts:
            _end_host(layout, part)
        else:
            processes.stop(layout, part, _ENDED_BY.get(part, signal.SIGTERM))
    processes.end(processes.survivors(layout), seconds=2)
    if layout.machines:
        machines.remove_network(layout)
    if left := processes.survivors(layout):
        raise SandboxError(f"{layout.directory}: still running: {', '.join(f'{one.pid} {one.name()}' for one in left)}")
    return running
