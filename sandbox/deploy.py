"""MarketSage's deploy, as it is without a rollback: no health gate, so that a bad release does get live."""
from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
from ansible_collections.marketsage.rollback.sandbox import build, machines, node, processes
from ansible_collections.marketsage.rollback.sandbox.build import Release
from ansible_collections.marketsage.rollback.sandbox.layout import MACHINE_METRICS_PORT, MACHINE_PORT, Layout
from ansible_collections.marketsage.rollback.sandbox.origins import git, repository
from ansible_collections.marketsage.rollback.sandbox.processes import MARK, SandboxError
from ansible_collections.marketsage.rollback.sandbox.servers import IMPORT_ROOT, PACKAGE, node_environment

APPLICATION = "marketsage-backend"
RAILWAY_SERVICE = "marketsage-frontend"
BRANCH = "production"
UPLOAD = f"{PACKAGE}.upload"
LOGIN_EMAIL = "smoke@marketsage.com"
_INSTANCES = 2
_STEP_SECONDS = 60


def deploy(layout: Layout, service: str, ref: str) -> Release:
    """Ship one release of a service to production and return it."""
    release = build.release(layout.origin, service, ref)
    {"backend": _deploy_backend, "frontend": _deploy_frontend}[service](layout, release)
    _move_branch(layout, service, release)
    return release


def _move_branch(layout: Layout, service: str, release: Release) -> None:
    git(repository(layout.origin, service), "update-ref", f"refs/heads/{BRANCH}", release.commit)


def _deploy_backend(layout: Layout, release: Release) -> None:
    _on_every_host(layout, _place, release)
    _migrate(layout, release)
    _on_every_host(layout, _switch, release)
    _on_every_host(layout, _reload)


def leave_traces(layout: Layout, release: Release) -> None:
    """What the deploy of a backend release that is live no more has left: its files and its line in the history."""
    for host in layout.hosts:
        _place(layout, host, release)
        _switch(layout, host, release)


def _migrate(layout: Layout, release: Release) -> None:
    # Prisma takes seconds to say that there is nothing to do.
    if migrations(release.path) <= _applied(layout):
        return
    processes.run(
        layout,
        "migrate",
        ["node_modules/.bin/prisma", "migrate", "deploy"],
        seconds=_STEP_SECONDS,
        extra={**node_environment(), "DATABASE_URL": secret(layout, "database_url")},
        cwd=layout.host(layout.hosts[0]) / "releases" / release.id,
    )


def migrations(release: Path) -> set[str]:
    """The names of the migrations that a release of the backend brings along."""
    return {entry.name for entry in (release / "prisma" / "migrations").iterdir() if entry.is_dir()}


def _applied(layout: Layout) -> set[str]:
    question = "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        try:
            return {name for (name,) in database.execute(question)}
        except psycopg.errors.UndefinedTable:
            return set()


def _on_every_host(layout: Layout, work: Callable[..., None], *arguments: Release) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: work(layout, host, *arguments), layout.hosts))


def make_hosts(layout: Layout) -> None:
    """The backend hosts as they are before the first deploy."""
    _on_every_host(layout, make_host)


def make_host(layout: Layout, name: str) -> None:
    """A backend host before its first deploy: a clone of the repository, and how its pm2 runs the application."""
    host = layout.host(name)
    (host / "releases").mkdir(parents=True)
    _install_programs(host / "bin")
    origin = repository(layout.origin, "backend")
    git(origin, "clone", "--quiet", "--mirror", str(origin), str(host / "repository.git"))
    application = {
        "name": APPLICATION,
        "cwd": str(host / "current"),
        "script": "dist/main.js",
        "exec_mode": "cluster",
        "instances": _INSTANCES,
        "wait_ready": True,
        "listen_timeout": 15000,
        "kill_timeout": 5000,
        "out_file": str(layout.logs / f"{name}.log"),
        "error_file": str(layout.logs / f"{name}.log"),
        "merge_logs": True,
        "env": _application_environment(layout, name),
    }
    ecosystem = f"module.exports = {json.dumps({'apps': [application]}, indent=2)};\n"
    write_private(host / "ecosystem.config.cjs", ecosystem)
    (layout.pids / name).unlink(missing_ok=True)
    if layout.machines:
        machines.start(layout, name)
    else:
        (layout.pids / name).symlink_to(host / ".pm2" / "pm2.pid")


def _install_programs(directory: Path) -> None:
    """What a host has installed: Node.js, npm, pm2 and Prisma's engine."""
    environment = node.environment()
    directory.mkdir()
    for name in ("node", "npm", "npx"):
        program = shutil.which(name, path=environment["PATH"])
        (directory / name).symlink_to(str(program))
    (directory / "pm2").symlink_to(node.pm2())
    (directory / "schema-engine").symlink_to(environment["PRISMA_SCHEMA_ENGINE_BINARY"])


def _application_environment(layout: Layout, name: str) -> dict[str, str]:
    return {
        "NODE_ENV": "production",
        **_addresses(layout, name),
        "JWT_SECRET": secret(layout, "jwt_secret"),
        "SESSION_SECRET": secret(layout, "session_secret"),
        "LOGIN_EMAIL": LOGIN_EMAIL,
        "LOGIN_PASSWORD": secret(layout, "smoke_password"),
        MARK: str(layout.directory),
    }


def _addresses(layout: Layout, name: str) -> dict[str, str]:
    """Where the application listens, and where it finds database and Redis."""
    if layout.machines:
        return {
            "HOST": "0.0.0.0",
            "PORT": str(MACHINE_PORT),
            "METRICS_BASE_PORT": str(MACHINE_METRICS_PORT),
            "DATABASE_URL": f"{layout.database_url_at(layout.gateway)}?schema=public",
            "REDIS_URL": f"redis://{layout.gateway}:{layout.port('redis')}",
        }
    return {
        "PORT": str(layout.port(name)),
        "METRICS_BASE_PORT": str(layout.port(f"{name}-metrics")),
        "DATABASE_URL": secret(layout, "database_url"),
        "REDIS_URL": f"redis://127.0.0.1:{layout.port('redis')}",
    }


def _place(layout: Layout, name: str, release: Release) -> None:
    host = layout.host(name)
    git(host / "repository.git", "fetch", "--quiet")
    target = host / "releases" / release.id
    if target.exists():
        return
    staging = target.with_name(f".{release.id}")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(release.path, staging, symlinks=True, copy_function=_link_or_copy)
    staging.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    # A release never changes, so that hosts and cache can share its files.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _switch(layout: Layout, name: str, release: Release) -> None:
    host = layout.host(name)
    fresh = host / "current.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("releases") / release.id)
    fresh.rename(host / "current")
    revision = {"release": release.id, "commit": release.commit, "ref": release.ref, "action": "deploy", "by": "deploy"}
    with (host / "revisions.jsonl").open("a") as revisions:
        revisions.write(json.dumps({"time": now(), **revision}) + "\n")


def _reload(layout: Layout, name: str) -> None:
    """Have pm2 run what is current on a host, without an interruption where it runs already, and remember it."""
    _pm2(layout, name, "startOrReload", "ecosystem.config.cjs")
    _pm2(layout, name, "save", "--force")


def _pm2(layout: Layout, name: str, *arguments: str) -> None:
    host = layout.host(name)
    variables = {**node_environment(), "PM2_HOME": str(host / ".pm2")}
    command = [str(node.pm2()), *arguments]
    if layout.machines:
        command, variables = machines.there(layout, name, command, variables, host), {}
    processes.run(layout, f"{name}-pm2", command, seconds=_STEP_SECONDS, extra=variables, cwd=host)


def make_workshop(layout: Layout) -> None:
    """Where the control side builds a frontend and ships it: a clone, Node.js, and the command that deploys."""
    workshop = layout.workshop
    for name in ("releases", "images"):
        (workshop / name).mkdir(parents=True)
    _install_programs(workshop / "bin")
    origin = repository(layout.origin, "frontend")
    git(origin, "clone", "--quiet", "--mirror", str(origin), str(workshop / "repository.git"))
    command = [sys.executable, "-m", UPLOAD, "--railway", layout.url("railway_api"), "--images", workshop / "images"]
    script = workshop / "bin" / "deploy"
    script.write_text(f"#!/bin/sh\nPYTHONPATH={IMPORT_ROOT} exec {shlex.join(map(str, command))}\n")
    script.chmod(0o755)


def _deploy_frontend(layout: Layout, release: Release) -> None:
    git(layout.workshop / "repository.git", "fetch", "--quiet")
    request = {
        "service": RAILWAY_SERVICE,
        "commitHash": release.commit,
        "commitMessage": f"release {release.ref}",
        "branch": BRANCH,
        "image": str(release.path),
        "variables": {"API_URL": layout.url("front")},
    }
    with httpx.Client(base_url=layout.url("railway_api"), timeout=10, trust_env=False) as railway:
        answer = railway.post("/_control/deploy", json=request)
        if not answer.is_success:
            raise SandboxError(f"railway: refused the deployment: {answer.text}")
        _wait_until_live(railway, answer.json()["id"], layout)


def _wait_until_live(railway: httpx.Client, deployment: str, layout: Layout) -> None:
    end = time.monotonic() + _STEP_SECONDS
    while (status := _deployment_status(railway, deployment)) != "SUCCESS":
        if status in ("CRASHED", "FAILED") or time.monotonic() > end:
            log = layout.logs / "railway-deployments" / f"{deployment}.log"
            raise SandboxError(f"railway: deployment {deployment} is {status} and not live", log)
        time.sleep(0.05)


def _deployment_status(railway: httpx.Client, deployment: str) -> str:
    deployments = railway.get("/_control/state").json()["deployments"]
    return str(next(one["status"] for one in deployments if one["id"] == deployment))


def secret(layout: Layout, name: str) -> str:
    return (layout.secrets / name).read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(0o600)
    path.write_text(text)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

