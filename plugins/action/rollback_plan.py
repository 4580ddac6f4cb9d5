# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resolve what a rollback would change; see the module's documentation."""
from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    archive,
    components,
    marks,
    planning,
    recovery_planning,
    session_planning,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action

# Raised when plans change their form: a run is finished by the version that began it.
PLAN_VERSION = 1


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
        raise Refused(f"severity: {severity} means '{row['action']}'", "To roll back nevertheless, say anyway=true.")


def resolve(arguments: dict[str, Any]) -> dict[str, Any]:
    """The plan for what was asked and read."""
    services = arguments["services"]
    severity = validate.severity(arguments["severity"])
    forward = arguments["archive_of"] is not None
    check_severity(severity, arguments["policy"], arguments["anyway"] or forward)
    unknown = [service for service in services if service not in arguments["catalogue"]]
    if unknown:
        raise BadInput(f"services: {', '.join(unknown)} is not in the catalogue ({', '.join(arguments['catalogue'])})")
    recovery = recovery_planning.part(arguments["recovery"], arguments["accept_loss"], arguments["anyway"])
    plan = {
        "version": PLAN_VERSION,
        "environment": arguments["environment"],
        "procedure": validate.identifier(arguments["procedure"], "procedure"),
        "severity": severity,
        "reason": validate.reason(arguments["reason"]),
        "services": kept_services(arguments, recovery) if recovery else services_to_roll_back(arguments),
        **recovery,
    }
    if arguments["component"] is not None:
        plan["component"] = arguments["component"]
    plan.update(recovery_planning.backup_part(arguments["takes_backup"], arguments["point_in_time"]))
    if arguments["instead_of"]:
        plan["instead_of"] = validate.run_id(arguments["instead_of"], "instead_of")
    plan["balancers"] = planning.balancers_for(plan, arguments["balancers"])
    if forward:
        plan["archive"] = archive_for(arguments["archive_of"], arguments["archives"])
    plan["databases"] = planning.databases_for(plan, arguments["hosts"].get("database", []))
    # A component's sessions are cleared with it, not again each time that it is asked for.
    scope = arguments["session_scope"] if not services or planning.changed_services(plan) else None
    plan.update(session_planning.part(scope, arguments["session_stores"], arguments["signed_sessions"]))
    return plan


def services_to_roll_back(arguments: dict[str, Any]) -> dict[str, Any]:
    """What is planned for each service; for a component, for the one that it is a part of."""
    if arguments["named"]:
        return {name: named_service(name, arguments) for name in arguments["services"]}
    known = marks.load(Control(arguments["control_dir"]).marks_file)
    if arguments["component"] is not None:
        return service_of_component(arguments["component"], arguments, known)
    wanted = wanted_for(arguments["services"], arguments["to"])
    return {
        service: planning.plan_service(
            service,
            arguments["catalogue"][service],
            hosts=arguments["hosts"].get(service, []),
            reports=arguments["reports"],
            marks=known,
            wanted=wanted.get(service),
            verdicts=arguments["schema_verdicts"],
            schema_too=arguments["schema_too"],
        )
        for service in arguments["services"]
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


def run_to_go_on_with(control: Control, arguments: dict[str, Any]) -> str | None:
    """The run that was named, or the interrupted one that this very request began."""
    if arguments["instead_of"] and not arguments["run_id"]:
        return None
    if not arguments["run_id"]:
        asked = ("environment", "procedure", "severity", "reason", "component", "session_scope", "point_in_time")
        return control.interrupted(control_action.operator(), {key: arguments[key] or None for key in asked})
    run_id = validate.run_id(arguments["run_id"])
    if not arguments["severity"] and control.plan(run_id) is None:
        raise BadInput(f"run_id: there is no run {run_id} in {control.directory}")
    return run_id


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
        "anyway": {"type": "bool", "default": False},
        "run_id": {"type": "str"},
        "instead_of": {"type": "str"},
        "expected_hash": {"type": "str"},
        "control_dir": {"type": "path", "required": True},
        "policy": {"type": "dict", "required": True},
        "catalogue": {"type": "dict", "required": True},
        "hosts": {"type": "dict", "required": True},
        "balancers": {"type": "dict", "required": True},
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
        control = Control(arguments["control_dir"])
        run_id = run_to_go_on_with(control, arguments)
        pinned = pinned_plan(control, run_id) if run_id else None
        plan = pinned or resolve(arguments)
        found = None if pinned else arguments["recovery"]
        writes_on = arguments["policy"]["severities"][plan["severity"]]["response_time"]
        seen = [] if pinned else seen_now(plan, arguments)
        seen += recovery_planning.counted(plan, found, writes_on)
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
            "schema_on": plan["databases"] if needs_working_out(plan) and not pinned else [],
            "summary": planning.summary(plan) + seen,
            "refusal": recovery_planning.refusal(plan, found, writes_on),
        }
