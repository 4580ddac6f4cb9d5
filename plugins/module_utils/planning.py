# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what was read to what will be changed: the plan of a run, resolved once and pinned."""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import rolling, session_planning
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import digest

# Whether a verdict on the schema asks for it to be rolled back too; a release with any other verdict is no target.
SCHEMA_ROLLBACK = {"equal": False, "additive": False, "destructive": True}


def mark_of(marks: dict[str, Any], service: str, commit: str) -> str | None:
    """Whether a release is known to be good or bad; None where nobody said."""
    mark: str | None = marks.get(service, {}).get(commit, {}).get("mark")
    return mark


def plan_hash(plan: dict[str, Any]) -> str:
    """The sha256 of a plan, which approval and record refer to."""
    return digest(plan)


def reports_of(
    service: str, hosts: list[str], reports: dict[str, Any], may_be_silent: int = 0
) -> dict[str, dict[str, Any]]:
    """What each host of a service reported; refused where there is no host or too many said nothing."""
    if not hosts:
        raise Refused(f"{service}: its group has no host in the inventory, so there is nothing to roll back")
    silent = silent_hosts(hosts, reports)
    if len(silent) > may_be_silent or len(silent) == len(hosts):
        said = "; ".join(f"{host}: {why}" for host, why in silent.items())
        raise Refused(
            f"{service}: could not be read on {len(silent)} of {len(hosts)} hosts ({said})",
            "Restore the connection to these hosts and run the same command again.",
        )
    return {host: _in_our_words(reports[host]) for host in hosts if host not in silent}


def silent_hosts(hosts: list[str], reports: dict[str, Any]) -> dict[str, str]:
    """The hosts that could not be read, and why."""
    return {
        host: str(reports.get(host, {}).get("msg", "unreachable"))
        for host in hosts
        if "candidates" not in reports.get(host, {})
    }


def _in_our_words(report: dict[str, Any]) -> dict[str, Any]:
    live = report.get("live")
    candidates = [_release_of(candidate) for candidate in report["candidates"] if candidate.get("commit")]
    return {"live": live and _release_of(live), "candidates": candidates}


def _release_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A release as the plan names it; a deployment is one whose id at the platform is kept."""
    if "id" not in entry:
        return entry
    method = "rollback" if entry["can_rollback"] else "redeploy"
    commit = entry["commit"] or ""
    return {"release": commit[:12], "commit": commit, "deployment": entry["id"], "method": method}


def common_candidates(reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Releases that every host can go back to, newest first, as the first host orders them."""
    first, *others = reports.values()
    return [
        candidate
        for candidate in first["candidates"]
        if all(any(other["commit"] == candidate["commit"] for other in report["candidates"]) for report in others)
    ]


def proven_on_some(
    service: str, reports: dict[str, dict[str, Any]], marks: dict[str, Any]
) -> list[dict[str, Any]]:
    """Releases marked good that are live on some of the hosts only, and that the others can go back to."""
    live = live_releases(reports)
    return [
        release
        for release in live
        if len(live) > 1
        and mark_of(marks, service, release["commit"]) == "good"
        and all(
            any(known["commit"] == release["commit"] for known in [report["live"], *report["candidates"]] if known)
            for report in reports.values()
        )
    ]


def live_releases(reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The distinct releases that are live on the hosts of one service."""
    distinct = {report["live"]["commit"]: report["live"] for report in reports.values() if report.get("live")}
    return list(distinct.values())


def is_named(release: dict[str, Any], wanted: str) -> bool:
    """Whether the operator's word (id, commit, tag or deployment) means this release."""
    return wanted in (release.get("release"), release.get("commit"), release.get("ref"), release.get("deployment"))


def choose(
    service: str,
    live: list[dict[str, Any]],
    candidates: list[dict[str, Any]],
    marks: dict[str, Any],
    wanted: str | None,
) -> dict[str, Any] | None:
    """The release to go back to, or None where the live one already is what is wanted.

    Without `wanted` that is the newest candidate marked good, else the newest not marked bad; a service whose
    only live release is marked good stays as it is.
    """
    if wanted:
        return _choose_named(service, live, candidates, wanted)
    if len(live) == 1 and mark_of(marks, service, live[0]["commit"]) == "good":
        return None
    allowed = [candidate for candidate in candidates if mark_of(marks, service, candidate["commit"]) != "bad"]
    good = [candidate for candidate in allowed if mark_of(marks, service, candidate["commit"]) == "good"]
    if not allowed:
        known = ", ".join(name_of(candidate) for candidate in candidates) or "none"
        raise Refused(
            f"{service}: there is no release to go back to (live before: {known}, each marked bad)",
            "Name one explicitly with 'to', or fix forward.",
        )
    return (good or allowed)[0]


def _choose_named(
    service: str, live: list[dict[str, Any]], candidates: list[dict[str, Any]], wanted: str
) -> dict[str, Any] | None:
    if len(live) == 1 and is_named(live[0], wanted):
        return None
    for candidate in [*candidates, *live]:
        if is_named(candidate, wanted):
            return candidate
    known = ", ".join(name_of(candidate) for candidate in candidates) or "none"
    raise BadInput(f"to: {service} has no release {wanted!r} that every host can go back to; it has: {known}")


def name_of(release: dict[str, Any]) -> str:
    """How a release is shown: its id, and its tag where it has one."""
    shown = str(release["release"])
    return f"{shown} ({release['ref']})" if release.get("ref") else shown


def check_schema(verdicts: dict[str, Any] | None, target: dict[str, Any]) -> dict[str, Any]:
    """The verdict on database and target release, and whether the schema goes back too; refused where it cannot."""
    if verdicts is None:
        raise Refused("database: its schema could not be read, so it is not known whether the target can live with it")
    verdict = verdicts.get(target["release"])
    if verdict is None:
        raise Refused(f"database: nothing is known about the migrations of release {name_of(target)}")
    if verdict["verdict"] not in SCHEMA_ROLLBACK:
        said = "; ".join(verdict["reasons"])
        raise Refused(
            f"database: its schema is {verdict['verdict']} for release {name_of(target)}: {said}",
            "Choose another release with 'to', or fix forward.",
        )
    rollback = SCHEMA_ROLLBACK[verdict["verdict"]]
    return {"verdict": verdict["verdict"], "reasons": verdict["reasons"], "rollback": rollback}


def pinned(release: dict[str, Any]) -> dict[str, Any]:
    """Those facts of a release that identify it, for ever the same."""
    return {key: release[key] for key in ("release", "commit", "ref", "deployment") if release.get(key)}


def plan_service(
    service: str,
    settings: dict[str, Any],
    *,
    hosts: list[str],
    reports: dict[str, Any],
    marks: dict[str, Any],
    wanted: str | None,
    verdicts: dict[str, Any] | None,
    may_be_silent: int = 0,
) -> dict[str, Any]:
    """One service's part of the plan."""
    read = reports_of(service, hosts, reports, may_be_silent)
    left_out = silent_hosts(hosts, reports)
    hosts = list(read)
    live = live_releases(read)
    candidates = [*proven_on_some(service, read, marks), *common_candidates(read)]
    target = choose(service, live, candidates, marks, wanted)
    part: dict[str, Any] = {"hosts": hosts, "from": [pinned(release) for release in live]}
    if left_out:
        part["left_out"] = left_out
    if target is None:
        return {**part, "action": "none", "to": pinned(live[0]), "stop_traffic": False}
    part.update(action="rollback", to=pinned(target), stop_traffic=settings["stop_traffic"])
    if target.get("method"):
        part["method"] = target["method"]
    unbuilt = [host for host in hosts if not _is_built(read[host], target)]
    if unbuilt:
        part["build"] = unbuilt
    if settings["uses_database"]:
        part["schema"] = check_schema(verdicts, target)
        if part["schema"]["rollback"] and len(live) > 1:
            raise Refused(f"{service}: {len(live)} releases are live, so it is not known whose migrations go back")
    return part


def _is_built(report: dict[str, Any], target: dict[str, Any]) -> bool:
    """Whether a host has a build of the target; a platform's deployments need none."""
    known = [*report["candidates"], *([report["live"]] if report["live"] else [])]
    return any(one["commit"] == target["commit"] and one.get("built", True) for one in known)


def needs_page(plan: dict[str, Any]) -> bool:
    """Whether traffic must be stopped for this plan."""
    return any(part["stop_traffic"] for part in plan["services"].values())


def changed_services(plan: dict[str, Any]) -> list[str]:
    return [service for service, part in plan["services"].items() if part["action"] == "rollback"]


def changes_something(plan: dict[str, Any]) -> bool:
    return bool(changed_services(plan) or plan.get("session_stores"))


def planned_hosts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Each host that the plan changes, with the groups by which plays name it."""
    groups: dict[str, list[str]] = {}
    orders = rolling.of_plan(plan)
    for service in changed_services(plan):
        way = "rolling" if service in orders else "at_once"
        for host in plan["services"][service]["hosts"]:
            groups.setdefault(host, []).extend([f"planned_{service}", f"{way}_{service}"])
    way = "page" if needs_page(plan) else "rolling"
    for host in plan["balancers"]:
        groups.setdefault(host, []).extend(["planned_balancer", f"{way}_balancer"])
    for host in plan["databases"]:
        groups.setdefault(host, []).append("planned_database")
    for host in plan.get("session_stores", []):
        groups.setdefault(host, []).append("planned_sessions")
    return [{"name": host, "groups": names} for host, names in groups.items()]


def verify_reports(plan: dict[str, Any], reports: dict[str, Any]) -> list[str]:
    """What speaks against success: a line for each planned host that did not prove the planned release."""
    complaints = [
        f"{host}: {complaint}"
        for service in changed_services(plan)
        for host, complaint in unproved(plan["services"][service], reports).items()
    ]
    for host in plan.get("session_stores", []):
        if not (reports.get(host) or {}).get("passed"):
            complaints.append(f"{host}: the sessions in scope are not proved to be gone")
    return complaints


def unproved(part: dict[str, Any], reports: dict[str, Any]) -> dict[str, str]:
    """The hosts of a service that did not prove the planned release, and what each said instead."""
    complaints = {}
    for host in part["hosts"]:
        report = reports.get(host) or {}
        if not report.get("passed"):
            complaints[host] = str(report.get("msg") or "no gate result")
        elif report.get("release") != part["to"]["release"]:
            complaints[host] = f"answers as {report.get('release')}, planned is {part['to']['release']}"
    return complaints


def balancers_for(plan: dict[str, Any], reports: dict[str, dict[str, Any]]) -> list[str]:
    """The balancers that show the maintenance page or drain hosts while this plan is carried out."""
    if not needs_page(plan) and not rolling.of_plan(plan):
        return []
    if not reports:
        raise Refused("balancer: its group has no host in the inventory, so traffic could not be stopped")
    for host, report in reports.items():
        if report.get("enabled") is None:
            raise Refused(f"balancer: {host} could not be read ({report.get('msg', 'unreachable')})")
    return list(reports)


def databases_for(plan: dict[str, Any], databases: list[str]) -> list[str]:
    """The host from which the schema is rolled back, where the plan asks for that."""
    asked = any(part.get("schema", {}).get("rollback") for part in plan["services"].values())
    return databases[:1] if asked else []


def summary(plan: dict[str, Any]) -> list[str]:
    """The plan in lines that a tired person can check."""
    lines = [f"{plan['severity']} {plan['procedure']} in {plan['environment']}: {plan['reason']}"]
    lines += [_service_line(service, part) for service, part in plan["services"].items()]
    lines += [
        _schema_line(part["schema"])
        for part in plan["services"].values()
        if part.get("schema")
    ]
    lines += session_planning.summary(plan) + rolling.summary(plan)
    return [*lines, f"traffic: {_traffic(plan)}" if changes_something(plan) else "nothing to change"]


def _traffic(plan: dict[str, Any]) -> str:
    if needs_page(plan):
        return f"maintenance page on {', '.join(plan['balancers'])} meanwhile"
    return "; ".join(map(rolling.traffic_line, rolling.of_plan(plan).values())) or "no page needed"


def _schema_line(schema: dict[str, Any]) -> str:
    effect = ", so its migrations go back too, what they drop is archived" if schema["rollback"] else ""
    return f"database: {schema['verdict']}{effect}{''.join(f'; {reason}' for reason in schema['reasons'])}"


def _service_line(service: str, part: dict[str, Any]) -> str:
    live = ", ".join(name_of(release) for release in part["from"])
    if part["action"] == "none":
        return f"{service}: {live} stays, it is the last good release"
    method = f" by {part['method']}" if part.get("method") else ""
    built = f", built first on {', '.join(part['build'])}" if part.get("build") else ""
    return f"{service}: {live} -> {name_of(part['to'])}{method} on {', '.join(part['hosts'])}{built}"
