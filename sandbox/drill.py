"""A drill: a sandbox of its own under load is broken, rolled back and scored."""
from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from ansible_collections.marketsage.rollback.sandbox import scenarios, stack
from ansible_collections.marketsage.rollback.sandbox.deploy import deploy
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, HOSTS, Layout, records_beside
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows

PORT_BASE = DEFAULT_PORT_BASE + 1000
# Requests a second; each page takes Next.js 15 ms, so that 50 would starve the rollback itself on two cores.
RATE = 20
_LONGEST_SECONDS = 600
_PHONES = 25
# So long severity and cause may take to be named.
_ASSESS_SECONDS = 60

Say = Callable[[str], None]


@dataclass(frozen=True)
class Drill:
    """What can be broken, the usual first, and the procedure that has to mend it."""

    scenarios: tuple[str, ...]
    procedure: str
    severity: str = "P0"
    # The release that mends it, where going forward again is part of the drill, and the procedure that then follows.
    fixed: str = ""
    forward: str = ""


DRILLS = {
    "backend": Drill(("backend-500", "backend-errors", "auth", "migration-additive"), "backend"),
    "frontend": Drill(("admin-middleware", "api-proxy", "admin-components"), "frontend"),
    "full-system": Drill(("full-system", "backend-500", "migration-destructive"), "full_system"),
    "database": Drill(("migration-destructive",), "database", fixed="v1.2.7-fixed", forward="restore_archive"),
}


@dataclass(frozen=True)
class Hands:
    """What a drill asks of its operator: to say how bad it is (what rollback_assess returns), to run a procedure, given
    its name, the reason and its variables, which returns exit code and run, and to tell how it goes."""

    assess: Callable[[], dict[str, Any]]
    run: Callable[[str, str, dict[str, str]], tuple[int, str]]
    say: Say


def hold(drill: Drill, scenario: str, layout: Layout, hands: Hands) -> dict[str, Any]:
    """Hold a drill with one of its scenarios.

    Returns exit_code, assessed (null without a Prometheus), answers (by kind), errors, acknowledged, lost (rows),
    turning_points (seconds since the load began), and for one that goes forward again `forward` with archived and lost
    (values).
    """
    stack.up(layout, hands.say)
    with Load(layout, rate=RATE, seconds=_LONGEST_SECONDS) as load:
        hands.say(f"load: {RATE} requests a second on api., app. and admin., a tenth of them writing numbered rows")
        broken = scenarios.break_(layout, scenario, hands.say)
        phones = _write_phones(layout) if drill.fixed else {}
        assessed = await_assessment(broken, hands) if layout.prometheus.exists() else None
        exit_code, run = hands.run(drill.procedure, f"drill: {scenario}", {})
        result = load.stop()
    acknowledged = list(load.record.acknowledged)
    scored: dict[str, Any] = {}
    if drill.fixed and exit_code == 0:
        exit_code, more = _go_forward(drill, layout, hands, run)
        acknowledged += more
        scored["forward"] = {"archived": len(phones), "lost": len(_missing_phones(layout, phones))}
    return {
        "exit_code": exit_code,
        "assessed": assessed,
        "answers": result["kinds"],
        "errors": result["errors"],
        "acknowledged": len(acknowledged),
        "lost": len(missing_rows(layout, acknowledged)),
        "turning_points": result["turning_points"],
        **scored,
    }


def hold_elsewhere(drill: Drill, where: str, hands: Hands) -> dict[str, Any]:
    """Hold a drill on what was broken by an inventory's own command. Returns exit_code and assessed: nobody counts
    answers and rows there."""
    assessed = await_assessment({"severity": drill.severity}, hands)
    exit_code, _run = hands.run(drill.procedure, f"drill: {where}", {})
    return {"exit_code": exit_code, "assessed": assessed}


def await_assessment(broken: dict[str, Any], hands: Hands) -> dict[str, Any]:
    """Wait until the severity and the cause are named; what was named, whether that is right, and after how long.

    `broken` has the severity and, where it is known, what was deployed.
    """
    began = time.monotonic()
    while True:
        named = _named(hands.assess(), broken)
        seconds = time.monotonic() - began
        if (named["severity_right"] and named["cause_right"] is not False) or seconds > _ASSESS_SECONDS:
            break
    hands.say(f"assessed: {named['severity']}, cause: {', '.join(named['cause']) or 'not named'}")
    return {"seconds": round(seconds, 1), **named}


def _named(found: dict[str, Any], broken: dict[str, Any]) -> dict[str, Any]:
    """An assessment against what was broken. Where no trigger is exceeded nothing dates the cause: it is null then, as
    where nobody knows what was deployed."""
    cause = found.get("cause", [])
    dated = "deployed" in broken and any(one["exceeded"] for one in found.get("measured", []))
    return {
        "severity": found.get("severity"),
        "severity_right": found.get("severity") == broken["severity"],
        "cause": [one["ref"] or one["commit"] for one in cause],
        "cause_right": _is_right(cause, broken["deployed"]) if dated else None,
    }


def _is_right(cause: list[dict[str, Any]], deployed: dict[str, dict[str, str]]) -> bool:
    """Whether a cause is named, and nothing but what was deployed."""
    releases = {one["release"] for one in deployed.values()}
    return bool(cause) and {one["commit"] for one in cause} <= releases


def _write_phones(layout: Layout) -> dict[str, str]:
    """Rows with what only the bad release can store, from a client that reaches a host itself; phones by email."""
    phones = {f"drill-{number}@drill.invalid": f"+49 30 {number:06d}" for number in range(_PHONES)}
    with httpx.Client(base_url=layout.url(HOSTS[0]), timeout=10, trust_env=False) as api:
        for email, phone in phones.items():
            api.post("/api/v2/contacts", json={"email": email, "name": "drill", "phone": phone}).raise_for_status()
    return phones


def _go_forward(drill: Drill, layout: Layout, hands: Hands, run: str) -> tuple[int, list[str]]:
    """Ship the fixed release and bring the archive of `run` back, under load; exit code and acknowledged rows."""
    with Load(layout, rate=RATE, seconds=_LONGEST_SECONDS) as load:
        fixed = deploy(layout, "backend", drill.fixed)
        hands.say(f"shipped: backend {fixed.ref}, with the migrations that went back")
        exit_code, _run = hands.run(drill.forward, f"drill: {fixed.ref} is live", {"archive_of": run})
        load.stop()
    return exit_code, load.record.acknowledged


def _missing_phones(layout: Layout, phones: dict[str, str]) -> list[str]:
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        rows = database.execute('SELECT email, phone FROM "Contact" WHERE email = ANY(%s)', [list(phones)]).fetchall()
    there: dict[str, str | None] = dict(rows)
    return [email for email, phone in phones.items() if there.get(email) != phone]


def keep_record(layout: Layout, run: str) -> Path:
    """Copy a run's record out of the drill's sandbox, which goes away; where it is now."""
    kept = records_beside(layout.directory) / run
    shutil.copytree(layout.control / "runs" / run, kept)
    shutil.copy(layout.control / "journal" / f"{run}.jsonl", kept / "journals" / "control.jsonl")
    return kept
