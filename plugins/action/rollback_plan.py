# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resolve what a rollback would change; see the module's documentation."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    archive,
    components,
    marks,
    planning,
    recovery_planning,
    rolling,
    session_planning,
    steps,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action, forms

# Raised when plans change their form: a run is finished by the version that began it.
PLAN_VERSION = 1

# What the operator chose among several possible targets; a run is gone on with by the same choice alone.
CHOICES = ("to", "back", "archive_of", "without")


def wanted_for(services: list[str], to: Any) -> dict[str, str]:
    """The release the operator named for each service: a word for a single service, else a dictionary."""
    if not to:
        return {}
    if isinstance(to, dict):
        unknown = sorted(set(to) - set(services))
        if unknown:
            raise BadInput(f"to: {', '.join(unknown)} is not rolled back here; services are {', '.join(services)}")
        return {service: validate.ref(ref, f"to.{service}") for service, ref in to.items()}
    if len(services) > 1:
        raise BadInput(f"to: name a release for each service, for example {{{services[0]}: v1.0.0}}")
    return {services[0]: validate.ref(to)}


def check_severity(severity: str, policy: dict[str, Any], anyway: bool) -> None:
    """Refused where the decision matrix prefers to fix forward, unless told to roll back anyway."""
    row = policy["severities"][severity]
    if row["rollback"] == "refuse" and not anyway:
        how = "To roll back nevertheless, say --anyway (-e anyway=true)."
        raise Refused(f"severity: {severity} means '{row['action']}'", how)


def resolve(control: Control, arguments: dict[str, Any]) -> dict[str, Any]:
    """The plan for what was asked and read."""
    reversal = reversal_of(control, arguments)
    earlier = (control.plan(reversal["run"]) or {}) if reversal else {}
    services = planning.changed_services(earlier) if reversal else arguments["services"]
    severity = validate.severity(arguments["severity"] or earlier.get("severity", ""))
    forward = arguments["archive_of"] is not None
    harmless = forward or arguments["takes_backup"]
    check_severity(severity, arguments["policy"], arguments["anyway"] or harmless or reversal is not None)
    unknown = [service for service in services if service not in arguments["catalogue"]]
    if unknown:
        raise BadInput(f"services: {', '.join(unknown)} is not in the catalogue ({', '.join(arguments['catalogue'])})")
    recovery = recovery_planning.part(arguments["recovery"], arguments["accept_loss"], arguments["anyway"])
    check_without(services, arguments, all_stay=bool(recovery))
    arguments = {**arguments, "reports": heard(arguments)}
    fleet = fleet_of(arguments)
    plan = {
        "version": PLAN_VERSION,
        "environment": arguments["environment"],
        "procedure": validate.identifier(arguments["procedure"], "procedure"),
        "severity": severity,
        "reason": validate.reason(arguments["reason"] or earlier.get("reason")),
        "approval": approval_for(severity, arguments, reversal),
        "asked": asked(arguments),
        "services": planned_services(control, arguments, recovery, reversal, earlier),
        **recovery,
    }
    if arguments["component"] is not None:
        plan["component"] = arguments["component"]
    plan.update(recovery_planning.backup_part(arguments["takes_backup"], arguments["point_in_time"]))
    if reversal:
        plan["reverses"] = reversal
    superseded = reversal["run"] if reversal and reversal["how"] == "abort" else arguments["instead_of"]
    if superseded:
        plan["instead_of"] = validate.run_id(superseded, "instead_of")
    planning.refuse_blind_hosts(plan, arguments["reports"])
    without_page = arguments["rolling"] and arguments["policy"]["severities"][severity]["traffic"] == "rolling"
    for part in plan["services"].values():
        part.update(rolling.plan_traffic(part, without_page, fleet))
    plan["balancers"] = planning.balancers_for(plan, arguments["balancers"])
    if forward:
        plan["archive"] = archive_for(arguments["archive_of"], arguments["archives"])
    plan["databases"] = planning.databases_for(plan, arguments["hosts"].get("database", []))
    # A component's sessions are cleared with it, not again each time that it is asked for.
    scope = arguments["session_scope"] if not services or planning.changed_services(plan) else None
    plan.update(session_planning.part(scope, arguments["session_stores"], arguments["signed_sessions"]))
    return plan


def asked(arguments: dict[str, Any]) -> dict[str, Any]:
    return {choice: arguments[choice] for choice in CHOICES if arguments[choice]}


def check_without(services: list[str], arguments: dict[str, Any], all_stay: bool) -> None:
    """BadInput where a host to leave out is none of these services'; refused where its users would go on meeting it."""
    named = arguments["without"]
    if not named:
        return
    if all_stay or arguments["named"] or arguments["component"] is not None:
        raise BadInput(f"without: {arguments['procedure']} leaves no host out")
    hosts = [host for service in services for host in arguments["hosts"].get(service, [])]
    if unknown := [name for name in named if name not in hosts]:
        raise BadInput(f"without: {unknown[0]!r} is none of {', '.join(hosts)}")
    if obstacle := fleet_of(arguments).undrainable(named):
        raise Refused(
            f"without: {', '.join(named)} would go on serving what is live there: {obstacle}",
            "Stop the application there, take the host out of the inventory, and run the command without --without.",
        )


def heard(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the hosts reported; of those that are left out by name nothing but why they could not be read, if so."""
    reports, named = arguments["reports"], arguments["without"]
    silent = planning.silent_hosts(named, reports)
    return {**reports, **{host: {"msg": silent.get(host, "as asked")} for host in named}}


def may_be_silent(hosts: list[str], arguments: dict[str, Any], left_out_before: Iterable[str] = ()) -> int:
    """How many of a service's hosts need not have reported: as many as may fail, and those known to be left out."""
    known = {*arguments["without"], *left_out_before}
    return fleet_of(arguments).may_fail(hosts) + len(known & set(planning.silent_hosts(hosts, arguments["reports"])))


def fleet_of(arguments: dict[str, Any]) -> rolling.Fleet:
    return rolling.Fleet(arguments["policy"]["rolling"], arguments["servers"], arguments["balancers"])


def idle_hosts(plan: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """Those hosts of a rolling plan that serve nobody at the moment and can be reached."""
    hosts = [host for order in rolling.of_plan(plan).values() for host in rolling.sequence(order, [])]
    silent = planning.silent_hosts(hosts, arguments["reports"])
    return [host for host in fleet_of(arguments).idle(hosts) if host not in silent]


def drained_hosts(plan: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """Those hosts of the plan that get no requests, because they were drained before."""
    hosts = [host for service in planning.gated_services(plan) for host in plan["services"][service]["hosts"]]
    return fleet_of(arguments).drained(hosts)


def approval_for(severity: str, arguments: dict[str, Any], reversal: dict[str, str] | None) -> dict[str, Any]:
    """Whether the severity asks for an approval, and whose; an abort only goes back, and a backup changes nothing."""
    policy = arguments["policy"]
    aborts = reversal is not None and reversal["how"] == "abort"
    need = "none" if aborts or arguments["takes_backup"] else policy["severities"][severity]["approval"]
    return {"need": need, "roles": policy["approval"]["roles"]}


def planned_services(
    control: Control,
    arguments: dict[str, Any],
    recovery: dict[str, Any],
    reversal: dict[str, str] | None,
    earlier: dict[str, Any],
) -> dict[str, Any]:
    """Each service's part of the plan."""
    if reversal:
        return services_to_put_back(arguments, reversal["run"], earlier)
    return kept_services(arguments, recovery) if recovery else services_to_roll_back(control, arguments)


def services_to_roll_back(control: Control, arguments: dict[str, Any]) -> dict[str, Any]:
    """What is planned for each service; for a component, for the one that it is a part of."""
    if arguments["named"]:
        return {name: named_service(name, arguments) for name in arguments["services"]}
    known = marks.load(control.marks_file)
    if arguments["component"] is not None:
        return service_of_component(arguments["component"], arguments, known)
    wanted = wanted_for(arguments["services"], arguments["to"])
    back = arguments["back"] and validate.positive(arguments["back"], "back")
    return {
        service: planning.plan_service(
            service,
            arguments["catalogue"][service],
            hosts=arguments["hosts"].get(service, []),
            reports=arguments["reports"],
            marks=known,
            wanted=wanted.get(service),
            back=back,
            verdicts=arguments["schema_verdicts"],
            schema_too=arguments["schema_too"],
            may_be_silent=may_be_silent(arguments["hosts"].get(service, []), arguments),
        )
        for service in arguments["services"]
    }


def services_to_put_back(arguments: dict[str, Any], run_id: str, earlier: dict[str, Any]) -> dict[str, Any]:
    """To the releases that were live before an earlier run."""
    return {
        service: planning.reverse_service(
            service,
            arguments["catalogue"][service],
            hosts=arguments["hosts"].get(service, []),
            reports=arguments["reports"],
            earlier=earlier["services"][service],
            run_id=run_id,
            verdicts=arguments["schema_verdicts"],
            may_be_silent=may_be_silent(
                arguments["hosts"].get(service, []), arguments, earlier["services"][service].get("left_out", [])
            ),
        )
        for service in planning.changed_services(earlier)
    }


def named_service(service: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return components.plan_named(service, arguments["hosts"].get(service, []), arguments["reports"])


def service_of_component(name: str, arguments: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    row = components.find(name, arguments["components"])
    service = row["service"]
    part = components.plan_component(
        name,
        row,
        hosts=arguments["hosts"].get(service, []),
        reports=arguments["reports"],
        marks=known,
        wanted=wanted_for([service], arguments["to"]).get(service),
        found=arguments["found"],
        anyway=arguments["anyway"],
    )
    return {service: part}


def kept_services(arguments: dict[str, Any], recovery: dict[str, Any]) -> dict[str, Any]:
    """The services whose data goes back, while their releases stay."""
    return {
        service: planning.keep_service(
            service,
            arguments["catalogue"][service],
            hosts=arguments["hosts"].get(service, []),
            reports=arguments["reports"],
            stays=not recovery_planning.restores(recovery),
        )
        for service in arguments["services"]
    }


def archive_for(run_id: str, archives: list[dict[str, Any]]) -> str | None:
    """The schema with what that run set aside; None where all of it was brought back."""
    found = archive.of_run(validate.run_id(run_id, "archive_of"), archives, "archive_of")
    return str(found["name"]) if found["waiting"] else None


def needs_working_out(plan: dict[str, Any]) -> bool:
    """Whether the database is asked how its schema changes, before anything does."""
    return planning.schema_goes_back(plan) or bool(plan.get("archive"))


def seen_now(plan: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """What is worth knowing beside the plan and is no part of it, because it changes by itself."""
    kept = arguments["archives"] if plan["databases"] else []
    archives = [
        f"now in the database: archive {each['name']}, {each['waiting']} of {each['items']} things not brought back"
        for each in kept
    ]
    return archives + session_planning.counted(arguments["session_stores"])


def reversal_of(control: Control, arguments: dict[str, Any]) -> dict[str, str] | None:
    """The run that is to be aborted or undone; refused where it cannot be."""
    how = next((name for name in ("abort", "undo") if arguments[name]), None)
    if how is None:
        return None
    run_id = validate.run_id(arguments[how], how)
    earlier, outcome = control.plan(run_id), control.outcome(run_id)
    if earlier is None:
        raise BadInput(f"{how}: there is no run {run_id} in {control.directory}")
    if earlier["procedure"] != arguments["procedure"]:
        raise BadInput(f"{how}: {run_id} is a run of {earlier['procedure']}, not of {arguments['procedure']}")
    if not planning.changed_services(earlier):
        raise Refused(f"{how}: what {earlier['procedure']} does cannot be taken back", f"rollback resume {run_id}")
    if earlier.get("component"):
        origin = next(iter(earlier["services"].values()))["from"][0]
        advice = f"Name the release: --to {origin['release']}"
        raise Refused(f"{how}: a component goes back with its service", advice)
    if how == "abort" and outcome:
        raise Refused(f"abort: {run_id} has ended ({outcome['state']})", f"To take it back: rollback undo {run_id}")
    if how == "undo" and (outcome or {}).get("state") != "done":
        said = outcome["state"] if outcome else "still open"
        raise Refused(f"undo: {run_id} is {said}; only a run that is done can be undone")
    return {"run": run_id, "how": how}


def run_to_go_on_with(control: Control, arguments: dict[str, Any]) -> str | None:
    """The run that was named, or the interrupted one that this very request began."""
    if arguments["instead_of"] and not arguments["run_id"]:
        return None
    if not arguments["run_id"]:
        return control.interrupted(control_action.operator(), words_of(arguments))
    run_id = validate.run_id(arguments["run_id"])
    if not arguments["severity"] and control.plan(run_id) is None:
        raise BadInput(f"run_id: there is no run {run_id} in {control.directory}")
    return run_id


def words_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those words of a request by which the interrupted run that it began is known again."""
    for how in ("abort", "undo"):
        if arguments[how]:
            return {"reverses": {"run": arguments[how], "how": how}}
    kept = ("environment", "procedure", "severity", "reason", "component", "session_scope", "point_in_time")
    return {"asked": asked(arguments), **{key: arguments[key] or None for key in kept}}


def pinned_plan(control: Control, run_id: str) -> dict[str, Any] | None:
    """The plan of a run that exists; refused where another version of this collection made it."""
    plan = control.plan(run_id)
    if plan and plan["version"] != PLAN_VERSION:
        raise Refused(f"run_id: the plan of {run_id} is of version {plan['version']}, this is {PLAN_VERSION}")
    return plan


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "environment": {"type": "str", "required": True},
        "procedure": {"type": "str", "required": True},
        "services": {"type": "list", "elements": "str", "required": True},
        "severity": {"type": "str", "required": True},
        "reason": {"type": "str", "required": True},
        "to": {"type": "raw"},
        "back": {"type": "int"},
        "without": {"type": "list", "elements": "str", "default": []},
        "anyway": {"type": "bool", "default": False},
        "abort": {"type": "str"},
        "undo": {"type": "str"},
        "run_id": {"type": "str"},
        "instead_of": {"type": "str"},
        "expected_hash": {"type": "str"},
        "control_dir": {"type": "path", "required": True},
        "policy": {"type": "dict", "required": True},
        "catalogue": {"type": "dict", "required": True},
        "hosts": {"type": "dict", "required": True},
        "balancers": {"type": "dict", "required": True},
        "rolling": {"type": "bool", "default": False},
        "servers": {"type": "dict", "default": {}},
        "reports": {"type": "dict", "required": True},
        "component": {"type": "str"},
        "components": {"type": "dict", "default": {}},
        "found": {"type": "dict", "default": {}},
        "named": {"type": "bool", "default": False},
        "schema_verdicts": {"type": "dict"},
        "archives": {"type": "list", "elements": "dict", "default": []},
        "archive_of": {"type": "str"},
        "schema_too": {"type": "bool", "default": False},
        "session_scope": session_planning.SCOPE_ARGUMENT,
        "session_stores": {"type": "dict", "default": {}},
        "recovery": {"type": "dict"},
        "accept_loss": {"type": "str", "default": ""},
        "takes_backup": {"type": "bool", "default": False},
        "point_in_time": {"type": "str"},
        "signed_sessions": {"type": "list", "elements": "dict", "default": []},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in ("policy", "catalogue", "components"):
            forms.check(f"rollback_{name}", arguments[name])
        control = Control(arguments["control_dir"])
        run_id = run_to_go_on_with(control, arguments)
        pinned = pinned_plan(control, run_id) if run_id else None
        plan = pinned or resolve(control, arguments)
        found = None if pinned else arguments["recovery"]
        writes_on = arguments["policy"]["severities"][plan["severity"]]["response_time"]
        seen = [] if pinned else seen_now(plan, arguments)
        seen += recovery_planning.counted(plan, found, writes_on)
        estimated = steps.estimates(control.path("runs"), plan["procedure"])
        if planning.changes_something(plan):
            seen += steps.forecast(estimated, writes_on, any(part.get("build") for part in plan["services"].values()))
        plan_hash = planning.plan_hash(plan)
        if arguments["expected_hash"] and arguments["expected_hash"] != plan_hash:
            raise Refused(
                f"plan: it is now {plan_hash[:12]}, not {arguments['expected_hash'][:12]} as agreed to",
                "Something changed meanwhile. Look at the new plan.",
            )
        return {
            "changed": False,
            "run_id": run_id or "",
            "plan": plan,
            "hash": plan_hash,
            "pinned": bool(pinned),
            "first": idle_hosts(plan, arguments),
            "drained": drained_hosts(plan, arguments),
            "schema_on": plan["databases"] if needs_working_out(plan) and not pinned else [],
            "summary": planning.summary(plan) + seen,
            "estimates": estimated,
            "refusal": recovery_planning.refusal(plan, found, writes_on),
        }
