# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what was read to what will be changed: the plan of a run, resolved once and pinned."""
from __future__ import annotations

import re
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import recovery_planning, rolling, session_planning
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import digest

# Whether a verdict on the schema asks for it to be rolled back too; a release with any other verdict is no target.
SCHEMA_ROLLBACK = {"equal": False, "additive": False, "destructive": True}

_SHOWN_COMMITS = 5
_REVERSALS = {"abort": "goes back to where it was before", "undo": "goes forward again, undoing"}


# What is said of a service whose release stays.
KEPT = {"none": ", it is the last good release", "keep": ""}


def mark_of(marks: dict[str, Any], service: str, commit: str) -> str | None:
    """Whether a release is known to be good or bad; None where nobody said."""
    mark: str | None = marks.get(service, {}).get(commit, {}).get("mark")
    return mark


def plan_hash(plan: dict[str, Any]) -> str:
    """The sha256 of a plan, which approval and record refer to."""
    return digest(plan)


def reports_of(
    service: str, hosts: list[str], reports: dict[str, Any], may_be_silent: int | None = None
) -> dict[str, dict[str, Any]]:
    """What each host of a service reported; refused where there is no host or too many said nothing.

    None for `may_be_silent` means that no host can be left out, not even by name.
    """
    if not hosts:
        raise Refused(f"{service}: its group has no host in the inventory, so there is nothing to roll back")
    silent = silent_hosts(hosts, reports)
    if len(silent) > (may_be_silent or 0) or len(silent) == len(hosts):
        said = "; ".join(f"{host}: {why}" for host, why in silent.items())
        advice = "See that these hosts can be read, and run the same command again."
        if may_be_silent is not None and len(silent) < len(hosts):
            names = ",".join(silent)
            advice += f" Or leave them out: --without {names} (-e without={names}), they get no requests meanwhile."
        raise Refused(f"{service}: could not be read on {len(silent)} of {len(hosts)} hosts ({said})", advice)
    return {host: _in_our_words(reports[host]) for host in hosts if host not in silent}


def silent_hosts(hosts: list[str], reports: dict[str, Any]) -> dict[str, str]:
    """The hosts that could not be read, and why."""
    return {
        host: _in_one_line(str(reports.get(host, {}).get("msg", "nothing was read")))
        for host in hosts
        if "candidates" not in reports.get(host, {})
    }


def _in_one_line(message: str) -> str:
    """How a message begins and ends: SSH frames its warnings, and says last what it comes to."""
    lines = [line.strip(" @") for line in message.splitlines() if re.search(r"\w", line)]
    return " ... ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else message


def _in_our_words(report: dict[str, Any]) -> dict[str, Any]:
    live = report.get("live")
    candidates = [candidate for candidate in report["candidates"] if candidate.get("commit")]
    deployed = [live, *candidates] if live else candidates
    return {
        "live": live and _release_of(live, deployed),
        "candidates": [_release_of(candidate, deployed) for candidate in candidates],
    }


def _release_of(entry: dict[str, Any], deployed: list[dict[str, Any]]) -> dict[str, Any]:
    """A release as the plan names it; a deployment is one whose id at the platform is kept.

    It leaves behind what was deployed after it.
    """
    if "id" not in entry:
        return entry
    method = "rollback" if entry["can_rollback"] else "redeploy"
    commit = entry["commit"] or ""
    leaves = [
        {"commit": one["commit"] or "", "author": one["author"] or "", "subject": (one["message"] or "").split("\n")[0]}
        for one in deployed
        if one["created"] > entry["created"]
    ]
    return {"release": commit[:12], "commit": commit, "deployment": entry["id"], "method": method, "leaves": leaves}


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
    *,
    back: int | None = None,
) -> dict[str, Any] | None:
    """The release to go back to, or None where the live one already is what is wanted.

    Without `wanted` that is the newest candidate marked good, else the newest not marked bad; a service whose
    only live release is marked good stays as it is. `back` counts the candidates that are not marked bad.
    """
    if wanted:
        return _choose_named(service, live, candidates, wanted)
    if len(live) == 1 and mark_of(marks, service, live[0]["commit"]) == "good":
        return None
    allowed = [candidate for candidate in candidates if mark_of(marks, service, candidate["commit"]) != "bad"]
    if back:
        return _choose_counted(service, allowed, back)
    good = [candidate for candidate in allowed if mark_of(marks, service, candidate["commit"]) == "good"]
    if not allowed:
        known = ", ".join(name_of(candidate) for candidate in candidates) or "none"
        raise Refused(
            f"{service}: there is no release to go back to (live before: {known}, each marked bad)",
            "Name one explicitly with 'to', or fix forward.",
        )
    return (good or allowed)[0]


def _choose_counted(service: str, allowed: list[dict[str, Any]], back: int) -> dict[str, Any]:
    """The release so many steps back."""
    if back > len(allowed):
        known = ", ".join(name_of(candidate) for candidate in allowed) or "none"
        raise Refused(f"back: {service} has {len(allowed)} releases to go back to that are not marked bad: {known}")
    return allowed[back - 1]


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


def check_schema(
    verdicts: dict[str, Any] | None, target: dict[str, Any], live: list[dict[str, Any]], schema_too: bool
) -> dict[str, Any]:
    """The verdict on database and target release, and whether the schema goes back too; refused where it cannot.

    It goes back where the target cannot live with it and, with `schema_too`, where it is ahead at all.
    """
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
    rollback = SCHEMA_ROLLBACK[verdict["verdict"]] or (schema_too and verdict["verdict"] != "equal")
    schema = {"verdict": verdict["verdict"], "reasons": verdict["reasons"], "rollback": rollback}
    return {**schema, "from": _release_of_the_database(verdicts, live)} if rollback else schema


def _release_of_the_database(verdicts: dict[str, Any], live: list[dict[str, Any]]) -> str:
    """The release whose migrations the database has, a live one where there is a choice: it tells how they go back."""
    equal = [release for release, verdict in verdicts.items() if verdict["verdict"] == "equal"]
    known = [release["release"] for release in live if release["release"] in equal] or equal
    if not known:
        raise Refused(
            "database: no release at hand has exactly its migrations, so it is not known how they go back",
            "Have the release that brought them on the host that database_releases_dir names.",
        )
    return str(known[0])


def forward_schema(
    verdicts: dict[str, Any] | None, target: dict[str, Any], live: list[dict[str, Any]], run_id: str
) -> dict[str, Any]:
    """How the schema gets to what a newer release needs: by its own migrations, with what `run_id` had archived."""
    verdict = (verdicts or {}).get(target["release"])
    if verdict and verdict["verdict"] == "behind":
        return {"verdict": "behind", "reasons": verdict["reasons"], "rollback": False, "forward": run_id}
    return check_schema(verdicts, target, live, False)


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
    schema_too: bool = False,
    back: int | None = None,
    may_be_silent: int | None = None,
) -> dict[str, Any]:
    """One service's part of the plan. With `schema_too` its database goes back although its code may stay."""
    read = reports_of(service, hosts, reports, may_be_silent)
    live = live_releases(read)
    candidates = [*proven_on_some(service, read, marks), *common_candidates(read)]
    chosen = choose(service, live, candidates, marks, wanted, back=back)
    part = _part(settings, read, chosen or live[0])
    if chosen and chosen.get("leaves"):
        part["leaves"] = chosen["leaves"]
    if len(read) < len(hosts):
        part["left_out"] = silent_hosts(hosts, reports)
    if settings["uses_database"] and (chosen or schema_too):
        part["schema"] = check_schema(verdicts, chosen or live[0], live, schema_too)
    if not chosen and not part.get("schema", {}).get("rollback"):
        return {**part, "action": "none", "stop_traffic": False}
    _refuse_schema_behind_a_host(service, part)
    return part


def _refuse_schema_behind_a_host(service: str, part: dict[str, Any]) -> None:
    """Refused where the schema would go back while a host that nobody reaches may still work with it."""
    left_out = part.get("left_out")
    if left_out and part.get("schema", {}).get("rollback"):
        raise Refused(
            f"{service}: the schema cannot go back while {', '.join(left_out)} is out of reach and may write to it",
            "Restore the connection to these hosts, or stop them and take them out of the inventory.",
        )


def reverse_service(
    service: str,
    settings: dict[str, Any],
    *,
    hosts: list[str],
    reports: dict[str, Any],
    earlier: dict[str, Any],
    run_id: str,
    verdicts: dict[str, Any] | None,
    may_be_silent: int | None = None,
) -> dict[str, Any]:
    """One service's part of a plan that takes back what an earlier run did or had begun to do to it."""
    if len(earlier["from"]) != 1:
        raise Refused(f"{service}: {len(earlier['from'])} releases were live before {run_id}; name one with 'to'")
    read = reports_of(service, hosts, reports, may_be_silent)
    origin = earlier["from"][0]
    known = [*common_candidates(read), *live_releases(read)]
    target = next((release for release in known if release["commit"] == origin["commit"]), None)
    if target is None:
        raise Refused(f"{service}: {name_of(origin)}, which was live before {run_id}, is on no host any more")
    part = _part(settings, read, target)
    if len(read) < len(hosts):
        part["left_out"] = silent_hosts(hosts, reports)
    if settings["uses_database"]:
        part["schema"] = forward_schema(verdicts, target, live_releases(read), run_id)
    return part


def _part(settings: dict[str, Any], read: dict[str, dict[str, Any]], target: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {
        "hosts": list(read),
        "from": [pinned(release) for release in live_releases(read)],
        "action": "rollback",
        "to": pinned(target),
        "stop_traffic": settings["stop_traffic"],
    }
    if target.get("method"):
        part["method"] = target["method"]
    unbuilt = [host for host in read if not _is_built(read[host], target)]
    if unbuilt:
        part["build"] = unbuilt
    return part


def keep_service(
    service: str, settings: dict[str, Any], *, hosts: list[str], reports: dict[str, Any], stays: bool
) -> dict[str, Any]:
    """The part of a service whose release stays: its traffic is stopped, and it is proved again, unless all `stays`."""
    live = live_releases(reports_of(service, hosts, reports))
    if len(live) != 1:
        raise Refused(f"{service}: {len(live)} releases are live, so it is not known which one to prove")
    part = {"hosts": hosts, "from": [pinned(live[0])], "to": pinned(live[0])}
    return {**part, "action": "none" if stays else "keep", "stop_traffic": settings["stop_traffic"] and not stays}


def _is_built(report: dict[str, Any], target: dict[str, Any]) -> bool:
    """Whether a host has a build of the target; a platform's deployments need none."""
    known = [*report["candidates"], *([report["live"]] if report["live"] else [])]
    return any(one["commit"] == target["commit"] and one.get("built", True) for one in known)


def needs_page(plan: dict[str, Any]) -> bool:
    """Whether traffic must be stopped for this plan."""
    return any(part["stop_traffic"] for part in plan["services"].values())


def changed_services(plan: dict[str, Any]) -> list[str]:
    return [service for service, part in plan["services"].items() if part["action"] == "rollback"]


def left_to_do(plan: dict[str, Any]) -> list[str]:
    """What a human has to do after the run, in its order."""
    deployed = any(plan["services"][service]["to"].get("deployment") for service in changed_services(plan))
    deploys = ["once the fix is ready, let automatic deploys go on: rollback unfreeze"] if deployed else []
    return session_planning.left_to_do(plan) + deploys


def gated_services(plan: dict[str, Any]) -> list[str]:
    """Those that must prove their planned release, changed or not."""
    return [service for service, part in plan["services"].items() if part["action"] in ("rollback", "keep")]


def refuse_blind_hosts(plan: dict[str, Any], reports: dict[str, Any]) -> None:
    """Refused where a host could not go through its gate, because it lacks a secret that the checklist needs there."""
    for service in gated_services(plan):
        for host in plan["services"][service]["hosts"]:
            lacking = reports.get(host, {}).get("host", {}).get("unreadable")
            if lacking:
                raise Refused(
                    f"{service}: {host} could not prove its release: {'; '.join(lacking)}",
                    "Put the secret there, readable by its owner alone, and run the same command again.",
                )


def changes_something(plan: dict[str, Any]) -> bool:
    return bool(changed_services(plan) or plan.get("session_stores") or changes_database(plan))


def changes_database(plan: dict[str, Any]) -> bool:
    """Whether the database is changed by itself, with no release of a service."""
    return bool(plan.get("archive") or recovery_planning.needs_database(plan))


def planned_hosts(plan: dict[str, Any], first: list[str] | None = None) -> list[dict[str, Any]]:
    """Each host that the plan changes, with the groups by which plays name it; rolling, those that come `first` do."""
    groups: dict[str, list[str]] = {}
    orders = rolling.of_plan(plan)
    for service in gated_services(plan):
        way = "rolling" if service in orders else "at_once"
        rolled = rolling.sequence(orders[service], first or []) if service in orders else None
        for host in rolled or plan["services"][service]["hosts"]:
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
    complaints = recovery_planning.complaints(plan, reports)
    for service in gated_services(plan):
        said = unproved(plan["services"][service], reports)
        complaints += [f"{host}: {complaint}" for host, complaint in said.items()]
    for host in plan.get("session_stores", []):
        if not (reports.get(host) or {}).get("passed"):
            complaints.append(f"{host}: the sessions in scope are not proved to be gone")
    for host in plan["databases"] if plan.get("archive") else []:
        if not (reports.get(host) or {}).get("passed"):
            complaints.append(f"{host}: the archive is not proved to be back")
    return complaints


def unproved(part: dict[str, Any], reports: dict[str, Any]) -> dict[str, str]:
    """The hosts of a service that did not prove the planned release, and what each said instead."""
    complaints = {}
    for host in part["hosts"]:
        report = reports.get(host) or {}
        if not report.get("passed"):
            complaints[host] = why_closed(report)
        elif report.get("release") != part["to"]["release"]:
            complaints[host] = f"answers as {report.get('release')}, planned is {part['to']['release']}"
    return complaints


def why_closed(report: dict[str, Any]) -> str:
    """What kept a gate closed, as far as it said."""
    failed = [one for one in report.get("results", []) if one["status"] != "passed"]
    return report.get("msg") or "; ".join(f"{one['name']}: {one['evidence']}" for one in failed) or "no gate result"


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


def schema_goes_back(plan: dict[str, Any]) -> bool:
    return any(part.get("schema", {}).get("rollback") for part in plan["services"].values())


def databases_for(plan: dict[str, Any], databases: list[str]) -> list[str]:
    """The host from which the schema is changed or an archive comes back, or the data is saved or restored."""
    forward = any(part.get("schema", {}).get("forward") for part in plan["services"].values())
    asked = schema_goes_back(plan) or forward or changes_database(plan)
    if asked and not databases:
        raise Refused("database: its group has no host in the inventory")
    return databases[:1] if asked else []


def summary(plan: dict[str, Any]) -> list[str]:
    """The plan in lines that a tired person can check."""
    lines = [f"{plan['severity']} {plan['procedure']} in {plan['environment']}: {plan['reason']}"]
    lines += [f"{_REVERSALS[plan['reverses']['how']]} {plan['reverses']['run']}"] if plan.get("reverses") else []
    for service, part in plan["services"].items():
        lines += [_service_line(service, part), *_leaves_lines(part), *_hybrid_lines(service, part)]
    lines += [
        _schema_line(part["schema"])
        for part in plan["services"].values()
        if part.get("schema")
    ]
    lines += session_planning.summary(plan) + recovery_planning.summary(plan) + rolling.summary(plan)
    if "archive" in plan:
        back = f"brought back from {', '.join(plan['databases'])}, nothing newer is overwritten"
        lines.append(f"archive {plan['archive']}: {back}" if plan["archive"] else "archive: all of it was brought back")
    if not changes_something(plan):
        return [*lines, "nothing to change"]
    first, *others = _traffic(plan)
    return [*lines, f"traffic: {first}", *others, approval_line(plan["approval"])]


def _traffic(plan: dict[str, Any]) -> list[str]:
    if needs_page(plan):
        return [f"maintenance page on {', '.join(plan['balancers'])} meanwhile"]
    orders = rolling.of_plan(plan).values()
    return [line for order in orders for line in rolling.traffic_lines(order)] or ["no page needed"]


def _leaves_lines(part: dict[str, Any]) -> list[str]:
    """What is taken out of production, as far as it is known; nobody's words reach a terminal as commands."""
    leaves = part.get("leaves", [])
    lines = [f"  without {one['commit'][:7]} {one['subject']} ({one['author']})" for one in leaves[:_SHOWN_COMMITS]]
    more = [f"  and {len(leaves) - _SHOWN_COMMITS} more"] if len(leaves) > _SHOWN_COMMITS else []
    return ["".join(character for character in line if character.isprintable()) for line in lines] + more


def approval_line(approval: dict[str, Any]) -> str:
    """What the severity asks for, in words."""
    by = f"of {' or '.join(approval['roles'])}, not the operator's own"
    return f"approval: {approval['need']}{'' if approval['need'] == 'none' else f' {by}'}"


def _hybrid_lines(service: str, part: dict[str, Any]) -> list[str]:
    """What must be known of a hybrid before it is agreed to."""
    hybrid = part.get("hybrid")
    if not hybrid:
        return []
    files = ", ".join(f"{len(hybrid[kind])} {kind}" for kind in ("changed", "restored", "removed") if hybrid[kind])
    rest = f"everything else, migrations too, as in {name_of(part['from'][0])}"
    return [
        f"{service}: {hybrid['component']} as in {name_of(hybrid['target'])} ({files}), {rest}",
        f"{service}: this is a hybrid that never ran; it goes away again where its gate does not pass",
    ]


def _schema_line(schema: dict[str, Any]) -> str:
    effect = ", so its migrations go back too, what they drop is archived" if schema["rollback"] else ""
    if schema.get("forward"):
        effect = f", so it goes forward again, with what {schema['forward']} had archived"
    return f"database: {schema['verdict']}{effect}{''.join(f'; {reason}' for reason in schema['reasons'])}"


def _service_line(service: str, part: dict[str, Any]) -> str:
    live = ", ".join(name_of(release) for release in part["from"])
    if part["action"] in KEPT:
        return f"{service}: {live} stays{KEPT[part['action']]}"
    if part["from"] == [part["to"]]:
        return f"{service}: {live} stays on {', '.join(part['hosts'])}, its database goes back to what it knows"
    method = f" by {part['method']}" if part.get("method") else ""
    built = f", built first on {', '.join(part['build'])}" if part.get("build") else ""
    return f"{service}: {live} -> {name_of(part['to'])}{method} on {', '.join(part['hosts'])}{built}"
