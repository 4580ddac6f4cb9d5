# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How bad it is and whether the last deploy is the likely cause, from what was measured; what is not known stays so."""
from __future__ import annotations

import shlex
from datetime import datetime, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import prometheus
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError

# A rate is an average over its window, so that a rise may be dated a little before the deploy that made it.
_SLACK = 30


def measure(url: str, trigger: dict[str, Any], now: float, window: int, step: int) -> dict[str, Any]:
    """One trigger's value now, whether it is exceeded (None: not known), and since when, in seconds since 1970."""
    bound = "above" if "above" in trigger else "below"
    told = {**{key: trigger[key] for key in ("name", "severity", "unit")}, "bound": bound, "limit": trigger[bound]}
    try:
        value = prometheus.single(prometheus.instant(url, trigger["query"]))
        series = prometheus.over_time(url, trigger["query"], (now - window, now), step)
    except RollbackError as error:
        return {**told, "value": None, "exceeded": None, "since": None, "problem": str(error)}
    if value is None:
        return {**told, "value": None, "exceeded": None, "since": None, "problem": "no samples"}
    exceeded = exceeds(value, trigger)
    since = rise(series[0], trigger) if exceeded and series else None
    return {**told, "value": round(value, 4) + 0.0, "exceeded": exceeded, "since": since, "problem": None}


def exceeds(value: float, trigger: dict[str, Any]) -> bool:
    return bool(value > trigger["above"] if "above" in trigger else value < trigger["below"])


def rise(samples: list[prometheus.Sample], trigger: dict[str, Any]) -> float | None:
    """When the newest stretch of exceeding samples began; None where the last one does not exceed."""
    began = None
    for sample in reversed(samples):
        if not exceeds(sample.value, trigger):
            break
        began = sample.time
    return began


def health(results: list[dict[str, Any]], severities: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks that did not pass, each with the severity that this means."""
    graded = {name: severity for severity, names in severities.items() if severity != "other" for name in names}
    return [
        {**{key: result[key] for key in ("name", "status", "evidence")},
         "severity": graded.get(result["name"], severities["other"])}
        for result in results
        if result["status"] not in ("passed", "unknown")
    ]  # fmt: skip


def deploys(reports: dict[str, Any], hosts: dict[str, list[str]]) -> list[dict[str, Any]]:
    """What went live of each service and when, newest first; what does not tell when is left out."""
    found = {}
    for service, members in hosts.items():
        for host in members:
            live = (reports.get(host) or {}).get("live") or {}
            since = seconds(live.get("since") or live.get("created"))
            if since is not None:
                named = {"service": service, "commit": (live.get("commit") or "")[:12], "ref": live.get("ref")}
                found[service] = {**named, "since": since}
    return sorted(found.values(), key=lambda deploy: -deploy["since"])


def likely_cause(began: float | None, deployed: list[dict[str, Any]], within: int) -> list[dict[str, Any]]:
    """The deploys that were followed by the rise within so many seconds."""
    if began is None:
        return []
    return [deploy for deploy in deployed if -_SLACK <= began - deploy["since"] <= within]


def accused(
    failing: list[dict[str, Any]], services: list[str], checklists: dict[str, Any]
) -> tuple[list[str], bool]:
    """The services that the failing checks tell of, and whether they do so by lines of a gate, which need no other."""
    names = {one["name"] for one in failing}
    gates = {service: checklists.get(f"{service}_gate", checklists[service]) for service in services}
    for lines in (gates, checklists):
        found = [service for service in services if names & {line["name"] for line in lines[service]}]
        if found:
            return found, lines is gates
    return services, True


def worst(severities: list[str]) -> str | None:
    """P0 before P1 before P2 before P3; None where nothing is wrong."""
    return min(severities, default=None)


def advice(services: list[str], severity: str | None, evidence: list[dict[str, Any]]) -> dict[str, Any]:
    """The procedure that takes these services back, the reason for it and what to type; all null where nothing is bad.

    The reason stays the same while the same is bad, so that an approval of the plan holds.
    """
    if severity is None:
        return {"procedure": None, "reason": None, "command": None}
    procedure = services[0] if len(services) == 1 else "full_system"
    reason = _reason(next(one for one in evidence if one["severity"] == severity))
    return {
        "procedure": procedure,
        "reason": reason,
        "command": f"rollback run {procedure} -s {severity} -r {shlex.quote(reason)}",
    }


def _reason(evidence: dict[str, Any]) -> str:
    if "limit" not in evidence:
        return f"failed: {evidence['name']}"[:200]
    return f"{evidence['name']}: {evidence['bound']} {evidence['limit']:g} {evidence['unit']}"[:200]


def seconds(moment: str | None) -> float | None:
    """A time that a host or platform told, in seconds since 1970; None where it told none."""
    try:
        parsed = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed.replace(tzinfo=parsed.tzinfo or timezone.utc).timestamp()
