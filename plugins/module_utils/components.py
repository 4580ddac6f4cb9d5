# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of a component's rollback: a hybrid of what is live and of the last good release."""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import planning
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused


def find(name: str, catalogue: dict[str, Any]) -> dict[str, Any]:
    """A component's row; BadInput, naming those there are, where there is none of that name."""
    if name not in catalogue:
        raise BadInput(f"component: {name!r} is not one of {', '.join(catalogue)}")
    row: dict[str, Any] = catalogue[name]
    return row


def plan_component(
    name: str,
    row: dict[str, Any],
    *,
    hosts: list[str],
    reports: dict[str, Any],
    marks: dict[str, Any],
    wanted: str | None,
    found: dict[str, Any],
    anyway: bool,
) -> dict[str, Any]:
    """The part of the plan that is about the component's service.

    `found` is what the pre-check's gates returned: `depends_on` by name, and `component`.
    """
    service = row["service"]
    read = planning.reports_of(service, hosts, reports)
    live = _only_live(service, planning.live_releases(read))
    candidates = planning.common_candidates(read)
    target = planning.choose(service, [live], candidates, marks, wanted)
    part = {"hosts": hosts, "from": [planning.pinned(live)], "stop_traffic": False}
    if target is not None or found:
        refuse_what_is_elsewhere(name, row, found)
    if target is None:
        return {**part, "action": "none", "to": planning.pinned(live)}
    if not anyway:
        refuse_what_is_not_broken(name, found)
    composed = {host: reports[host].get("compositions", []) for host in hosts}
    hybrid = composition(name, row, composed, target)
    if hybrid["commit"] is None:
        raise unaffected(name, row, live, target, _with_other_contents(composed, candidates))
    return {**part, "action": "rollback", **_hybrid_part(name, row, hosts, hybrid, target)}


def _hybrid_part(
    name: str, row: dict[str, Any], hosts: list[str], hybrid: dict[str, Any], target: dict[str, Any]
) -> dict[str, Any]:
    files = {kind: hybrid[kind] for kind in ("changed", "restored", "removed")}
    about = {"component": name, "paths": row["paths"], "target": planning.pinned(target), **files}
    commit = hybrid["commit"]
    return {"to": {"release": commit[:12], "commit": commit}, "hybrid": about, "build": hosts}


def _only_live(service: str, live: list[dict[str, Any]]) -> dict[str, Any]:
    if len(live) != 1:
        names = ", ".join(planning.name_of(release) for release in live) or "none that is known"
        raise Refused(
            f"{service}: {len(live)} releases are live ({names}), so it is not known what the component is part of",
            f"Bring every host to one release first: rollback run {service}",
        )
    return live[0]


def refuse_what_is_elsewhere(name: str, row: dict[str, Any], found: dict[str, Any]) -> None:
    """Refused where what the component depends on is down: that is to be mended instead."""
    for other in row.get("depends_on", {}):
        gate = found.get("depends_on", {}).get(other) or {}
        if not gate.get("passed"):
            raise Refused(
                f"{name}: {other} is what is down, or cannot be asked: {planning.why_closed(gate)}",
                f"Rolling {name} back would not help. Run: rollback run {other}",
            )


def refuse_what_is_not_broken(name: str, found: dict[str, Any]) -> None:
    """Refused where the component's own checks passed, or were not made."""
    gate = found.get("component") or {}
    if gate.get("passed"):
        raise Refused(
            f"{name}: is not broken, {gate['passes']} times in a row: {evidence(gate)}",
            "Look for what is broken elsewhere; to roll it back nevertheless, say anyway=true.",
        )
    if not any(result["status"] == "failed" for result in gate.get("results", [])):
        raise Refused(
            f"{name}: whether it is broken could not be checked: {planning.why_closed(gate)}",
            "Mend that; to roll it back nevertheless, say anyway=true.",
        )


def evidence(gate: dict[str, Any]) -> str:
    """What each check met."""
    return "; ".join(f"{result['name']}: {result['evidence']}" for result in gate.get("results", []))


def composition(
    name: str, row: dict[str, Any], composed: dict[str, list[dict[str, Any]]], target: dict[str, Any]
) -> dict[str, Any]:
    """What the hosts worked out for a target; refused where one could not, or where they differ."""
    worked_out = {host: _of_target(compositions, target) for host, compositions in composed.items()}
    silent = [host for host, one in worked_out.items() if one is None]
    if silent:
        raise Refused(
            f"{name}: the repository on {', '.join(silent)} does not hold both what is live and {target['commit']}",
            "Fetch there, and run it again.",
        )
    first, *others = [one for one in worked_out.values() if one is not None]
    if any(other != first for other in others):
        raise Refused(f"{name}: hosts work out different commits for {planning.name_of(target)}; is one git older?")
    return first


def _of_target(compositions: list[dict[str, Any]], release: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in compositions if one["target"] == release["commit"]), None)


def _with_other_contents(
    composed: dict[str, list[dict[str, Any]]], candidates: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The newest release that was live with other contents of the component."""
    first = next(iter(composed.values()))
    differing = (one for one in candidates if (_of_target(first, one) or {}).get("commit"))
    return next(differing, None)


def unaffected(
    name: str, row: dict[str, Any], live: dict[str, Any], target: dict[str, Any], other: dict[str, Any] | None
) -> Refused:
    """There is nothing to change: the live release and the target have the same contents."""
    paths, service = ", ".join(row["paths"]), row["service"]
    older = f"To take it from {planning.name_of(other)}, which had others, say so with 'to'. " if other else ""
    return Refused(
        f"{name}: {paths} is the same in {planning.name_of(live)}, which is live, and in {planning.name_of(target)}: "
        f"{'the last deploy did not touch it' if other else 'no release that was live had it otherwise'}",
        f"{older}What is broken is something else: rollback run {service}",
    )


def plan_named(service: str, hosts: list[str], reports: dict[str, Any]) -> dict[str, Any]:
    """The part of the plan for a commit that the operator named, to be built and deployed, whether it was live or not.

    `named` in each report is what the repository says that it is.
    """
    live = planning.live_releases(planning.reports_of(service, hosts, reports))
    named = {host: reports[host].get("named") or {} for host in hosts}
    lacking = [f"{host}: {one.get('msg', 'not asked')}" for host, one in named.items() if not one.get("commit")]
    if lacking:
        raise BadInput(f"to: name the commit, tag or branch to build ({'; '.join(lacking)})")
    commits = {one["commit"] for one in named.values()}
    if len(commits) > 1:
        raise Refused(f"to: means {len(commits)} different commits on {', '.join(hosts)}; name the commit itself")
    commit = commits.pop()
    to = {"release": commit[:12], "commit": commit}
    part = {"hosts": hosts, "from": [planning.pinned(release) for release in live], "to": to, "stop_traffic": False}
    if [release["commit"] for release in live] == [commit]:
        return {**part, "action": "none"}
    return {**part, "action": "rollback", "method": "deploy", "build": hosts}
