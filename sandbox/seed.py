"""What production has in its database and in Redis, and how a sandbox gets it back."""
from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import redis
from ansible_collections.marketsage.rollback.sandbox import servers
from ansible_collections.marketsage.rollback.sandbox.deploy import LOGIN_EMAIL, secret
from ansible_collections.marketsage.rollback.sandbox.layout import Layout
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError
from psycopg import sql

CONTACTS = 40
SESSIONS = 12
_API = {"host": "api.marketsage.com"}
# Keys that a rollback of sessions must leave alone.
_OTHER_KEYS = {
    **{f"bull:campaigns:{number}": '{"name": "send", "attempts": 0}' for number in range(20)},
    **{f"revoked:{number:04d}": "1" for number in range(5)},
    "cache:segments": '["new", "active"]',
}


def fill(layout: Layout) -> None:
    """Write contacts through the API, and keep a dump of the database as it is then."""
    with httpx.Client(base_url=layout.url("front"), headers=_API, timeout=10, trust_env=False) as api:
        for number in range(1, CONTACTS + 1):
            row = {"email": f"contact-{number}@example.com", "name": f"Contact {number}"}
            _expect(api.post("/api/v2/contacts", json=row), 201)
    _run(layout, "pg_dump", "--format=custom", "--file", str(_dump(layout)), layout.database_url)
    fill_redis(layout)


def fill_redis(layout: Layout) -> None:
    """Replace everything in Redis by sessions of real logins and keys of other uses."""
    client = redis.Redis(port=layout.port("redis"))
    client.flushall()
    client.mset(_OTHER_KEYS)
    account = {"email": LOGIN_EMAIL, "password": secret(layout, "smoke_password")}
    with httpx.Client(base_url=layout.url("front"), headers=_API, timeout=10, trust_env=False) as api:
        for _ in range(SESSIONS):
            api.cookies.clear()  # each from a browser of its own, or there would be one session
            _expect(api.post("/api/v2/auth/login", json=account), 200)


def restore_database(layout: Layout) -> None:
    """Drop every database that a run may have left, and restore the one of the seed."""
    with servers.maintenance_connection(layout) as server:
        names = server.execute("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        for (name,) in names.fetchall():
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    servers.create_database(layout)
    _run(layout, "pg_restore", "--exit-on-error", "--dbname", layout.admin_database_url, str(_dump(layout)))


def _dump(layout: Layout) -> Path:
    return layout.directory / "seed.dump"


def _run(layout: Layout, tool: str, *arguments: str) -> None:
    command = [servers.postgres_tool(tool), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise SandboxError(f"{tool}: {result.stderr.strip()}")


def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        request = f"{answer.request.method} {answer.request.url.path}"
        raise SandboxError(f"{request} answered {answer.status_code}, not {status}: {answer.text}")
