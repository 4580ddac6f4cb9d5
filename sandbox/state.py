"""What a sandbox is like right now, as its parts themselves say."""
from __future__ import annotations

import json
from typing import Any

import psycopg
import redis
from ansible_collections.marketsage.rollback.sandbox import processes, servers
from ansible_collections.marketsage.rollback.sandbox.layout import Layout

_SERVING = ("prometheus", "alertmanager", "haproxy", "railway")
_SERVED_FROM = ("redis", "postgres", "sink")
_ID_DIGITS = 12
# Enough connections to meet every worker of a cluster that takes turns.
_ASKS = 4


def parts(layout: Layout) -> tuple[str, ...]:
    """Every part, in the order in which they are ended: what serves first, what it serves from last."""
    return (*_SERVING, *layout.hosts, *_SERVED_FROM)


def read(layout: Layout) -> dict[str, Any]:
    """Processes, live releases, maintenance and rows; None stands for what does not answer."""
    found = {part: processes.find(layout, part) for part in parts(layout)}
    return {
        "directory": str(layout.directory),
        "front": layout.url("front"),
        "processes": {part: process.pid if process else None for part, process in found.items()},
        "hosts": {host: _host(layout, host) for host in layout.hosts},
        "railway": _railway(layout),
        "maintenance": _maintenance(layout),
        "rows": {"contacts": _contacts(layout), "sessions": _sessions(layout)},
    }


def _host(layout: Layout, name: str) -> dict[str, Any]:
    """The release that is linked as current, and the health and releases that answer."""
    answers = [servers.ask(f"{layout.url(name)}/api/v2/health") for _ in range(_ASKS)]
    present = [answer for answer in answers if answer is not None]
    link = layout.host(name) / "current"
    return {
        "current": link.resolve().name if link.exists() else None,
        "answering": sorted({answer.headers.get("x-release", "") for answer in present}),
        "health": sorted({answer.status_code for answer in present}),
    }


def _railway(layout: Layout) -> dict[str, Any] | None:
    answer = servers.ask(layout.url("railway_api") + "/_control/state")
    if answer is None:
        return None
    state = answer.json()
    live = next((one for one in state["deployments"] if one["id"] == state["live"]), None)
    return live and {"deployment": live["id"], "release": live["commitHash"][:_ID_DIGITS], "status": live["status"]}


def _maintenance(layout: Layout) -> bool | None:
    answer = servers.ask(layout.url("front"))
    return None if answer is None else answer.headers.get("x-maintenance") == "on"


def _contacts(layout: Layout) -> int | None:
    try:
        with psycopg.connect(layout.database_url, connect_timeout=5) as database:
            row = database.execute('SELECT count(*) FROM "Contact"').fetchone()
    except psycopg.Error:
        return None
    return row[0] if row else None


def _sessions(layout: Layout) -> int | None:
    client = redis.Redis(port=layout.port("redis"), socket_timeout=5)
    try:
        return sum(1 for _ in client.scan_iter("sess:*", count=1000))
    except redis.RedisError:
        return None


def refs(layout: Layout) -> dict[str, str]:
    """The ref under which each release was deployed to the backend, by its id."""
    files = layout.directory.glob("hosts/*/revisions.jsonl")
    revisions = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {revision["release"]: revision["ref"] for revision in revisions}
