"""What can be broken: a bad release shipped as a deploy would, under traffic, and its symptom seen."""
from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis
import yaml
from ansible_collections.marketsage.rollback.sandbox import containers, processes
from ansible_collections.marketsage.rollback.sandbox.build import Release
from ansible_collections.marketsage.rollback.sandbox.deploy import LOGIN_EMAIL, deploy, migrations, secret
from ansible_collections.marketsage.rollback.sandbox.layout import Layout
from ansible_collections.marketsage.rollback.sandbox.load import Load
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput, SandboxError

_REQUESTS_PER_SECOND = 10
_SECONDS_BEFORE_AND_AFTER = 1.0
_SYMPTOM_SECONDS = 20
_BACKUP_SECONDS = 180


@dataclass(frozen=True)
class Scenario:
    name: str
    description: str
    severity: str
    symptoms: tuple[str, ...]
    deploys: Mapping[str, str] = field(default_factory=dict)
    backup: bool = False
    job: str = ""
    stack: str = ""


def all_scenarios() -> dict[str, Scenario]:
    data = yaml.safe_load(Path(__file__).with_name("scenarios.yml").read_text())
    return {name: Scenario(name, **{**fields, "symptoms": tuple(fields["symptoms"])}) for name, fields in data.items()}


def find(name: str) -> Scenario:
    """The scenario of that name; SandboxError, naming those there are, when there is none."""
    scenarios = all_scenarios()
    if name not in scenarios:
        raise BadInput(f"scenario: {name!r} is not one of {', '.join(scenarios)}")
    return scenarios[name]


def break_(layout: Layout, name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Deploy what a scenario deploys, with requests and writes going on, until its symptoms are seen.

    A backup, where the scenario has one, is taken before the first of these writes.
    """
    scenario = find(name)
    if scenario.backup:
        _back_up(layout)
        say("a proven backup is taken, as every night")
    with Load(layout, rate=_REQUESTS_PER_SECOND) as load:
        time.sleep(_SECONDS_BEFORE_AND_AFTER)
        with ThreadPoolExecutor() as pool:
            releases = list(pool.map(lambda one: deploy(layout, *one), scenario.deploys.items()))
        for release in releases:
            say(f"deployed: {release.service} {release.ref}")
        if scenario.job:
            _run_job(layout, scenario.job)
        if scenario.stack:
            containers.up(layout)
            say("the monitoring stack runs in containers")
            containers.deploy(layout, scenario.stack)
        for symptom in scenario.symptoms:
            _await_symptom(layout, symptom, {release.service: release for release in releases})
        say(f"seen: {scenario.description}")
        time.sleep(_SECONDS_BEFORE_AND_AFTER)
    return {
        "scenario": scenario.name,
        "severity": scenario.severity,
        "deployed": {release.service: {"release": release.id, "ref": release.ref} for release in releases},
        "seen": list(scenario.symptoms),
        "requests": load.record.result()["kinds"],
        "acknowledged": len(load.record.acknowledged),
    }


def _back_up(layout: Layout) -> None:
    command = [str(Path(sys.executable).with_name("rollback")), "run", "backup", "-r", "nightly backup"]
    processes.run(layout, "backup", command, seconds=_BACKUP_SECONDS, extra={"ROLLBACK_SANDBOX": str(layout.directory)})


def _run_job(layout: Layout, statement: str) -> None:
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        database.execute(statement)


def _await_symptom(layout: Layout, symptom: str, releases: Mapping[str, Release]) -> None:
    end = time.monotonic() + _SYMPTOM_SECONDS
    with httpx.Client(base_url=layout.url("front"), timeout=5, trust_env=False) as front:
        while not _is_seen(symptom, layout, front, releases):
            if time.monotonic() > end:
                raise SandboxError(f"{symptom}: the symptom is not there {_SYMPTOM_SECONDS} s after the deploy")
            time.sleep(0.05)


def _is_seen(symptom: str, layout: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """Whether the symptom is there now; what does not answer in time shows nothing."""
    try:
        return SYMPTOMS[symptom](layout, front, releases)
    except httpx.TransportError:
        return False


def _health_fails(layout: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """Each host answers 500 as the bad release, and HAProxy has no server left."""
    answers = [front.get(f"{layout.url(host)}/api/v2/health") for host in layout.hosts]
    failing = all(answer.status_code == 500 and _is_from(releases["backend"], answer) for answer in answers)
    return failing and _get(front, "api", "/api/v2/health").status_code == 503


def _some_answers_fail(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    healthy = _get(front, "api", "/api/v2/health").status_code == 200
    answer = _get(front, "api", "/api/v2/contacts?take=1")
    return healthy and answer.status_code == 500 and _is_from(releases["backend"], answer)


def _tokens_are_refused(layout: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    account = {"email": LOGIN_EMAIL, "password": secret(layout, "smoke_password")}
    login = front.post("/api/v2/auth/login", headers=_host("api"), json=account)
    token = {"authorization": f"Bearer {login.json().get('token')}"}
    answer = front.post("/api/v2/auth/verify-token", headers={**_host("api"), **token})
    return login.status_code == 200 and answer.status_code == 401 and _is_from(releases["backend"], answer)


def _logins_are_forgotten(layout: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """A login leaves no session under the prefix of sessions."""
    kept = redis.Redis(port=layout.port("redis"), socket_timeout=5)
    before = set(kept.scan_iter("sess:*", count=1000))
    account = {"email": LOGIN_EMAIL, "password": secret(layout, "smoke_password")}
    login = front.post("/api/v2/auth/login", headers=_host("api"), json=account)
    came = set(kept.scan_iter("sess:*", count=1000)) - before
    return login.status_code == 200 and not came and _is_from(releases["backend"], login)


def _connections_run_out(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    healthy = _get(front, "api", "/api/v2/health").status_code == 200
    answer = _get(front, "api", "/api/v2/health/db")
    return healthy and answer.status_code == 503 and _is_from(releases["backend"], answer)


def _migration_is_applied(layout: Layout, _: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """The database has a migration that came with the release."""
    release = releases["backend"]
    placed = (layout.host(layout.hosts[0]) / "releases").iterdir()
    others = set().union(*(migrations(directory) for directory in placed if directory.name != release.id))
    added = migrations(release.path) - others
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        rows = database.execute("SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL")
        applied = {name for (name,) in rows}
    return bool(added) and added <= applied


def _admin_portal_is_gone(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    answer = _get(front, "admin", "/")
    return "Admin" not in answer.text and _is_from(releases["frontend"], answer)


def _admin_pages_fail(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    admin, main = _get(front, "admin", "/"), _get(front, "app", "/")
    return admin.status_code == 500 and main.status_code == 200 and _is_from(releases["frontend"], main)


def _proxy_finds_nothing(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    proxied, direct = _get(front, "app", "/api/proxy/health"), _get(front, "api", "/api/v2/health")
    page = _get(front, "app", "/")
    return (proxied.status_code, direct.status_code) == (404, 200) and _is_from(releases["frontend"], page)


def _addresses_are_overwritten(layout: Layout, front: httpx.Client, _: Mapping[str, Release]) -> bool:
    """Contacts have no address any more, while the API is well."""
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        damaged = database.execute("SELECT count(*) FROM \"Contact\" WHERE email NOT LIKE '%@%'").fetchone()
    return damaged != (0,) and _get(front, "api", "/api/v2/health/db").status_code == 200


def _page_writes_to_the_console(_: Layout, front: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """One of the page's scripts has what is written; only a browser would show it written."""
    page = _get(front, "app", "/")
    scripts = sorted(set(re.findall(r"/_next/static/[^\"\\]+\.js", page.text)))
    written = any("analytics: the script has not been loaded" in _get(front, "app", path).text for path in scripts)
    return written and _is_from(releases["frontend"], page)


def _targets_are_down(layout: Layout, _: httpx.Client, releases: Mapping[str, Release]) -> bool:
    """The stack's Prometheus answers, and not one of the backend's workers is scraped."""
    return containers.health(layout) == {**containers.HEALTHY, "marketsage-backend": {"down"}}


SYMPTOMS: dict[str, Callable[[Layout, httpx.Client, Mapping[str, Release]], bool]] = {
    "health": _health_fails,
    "errors": _some_answers_fail,
    "tokens": _tokens_are_refused,
    "sessions": _logins_are_forgotten,
    "connections": _connections_run_out,
    "migration": _migration_is_applied,
    "admin": _admin_portal_is_gone,
    "admin_pages": _admin_pages_fail,
    "proxy": _proxy_finds_nothing,
    "damage": _addresses_are_overwritten,
    "targets": _targets_are_down,
    "console": _page_writes_to_the_console,
}


def _is_from(release: Release, answer: httpx.Response) -> bool:
    return answer.headers.get("x-release") == release.id


def _host(service: str) -> dict[str, str]:
    return {"host": f"{service}.marketsage.com"}


def _get(front: httpx.Client, service: str, path: str) -> httpx.Response:
    return front.get(path, headers=_host(service))
