# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resolve what a rollback would change; see the module's documentation."""
from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    marks,
    planning,
    rolling,
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
    check_severity(severity, arguments["policy"], arguments["anyway"])
    unknown = [service for service in services if service not in arguments["catalogue"]]
    if unknown:
        raise BadInput(f"services: {', '.join(unknown)} is not in the catalogue ({', '.join(arguments['catalogue'])})")
    wanted = wanted_for(services, arguments["to"])
    known = marks.load(Control(arguments["control_dir"]).marks_file)
    fleet = rolling.Fleet(arguments["policy"]["rolling"], arguments["servers"], arguments["balancers"])
    plan = {
        "version": PLAN_VERSION,
        "environment": arguments["environment"],
        "procedure": validate.identifier(arguments["procedure"], "procedure"),
        "severity": severity,
        "reason": validate.reason(arguments["reason"]),
        "services": {
            service: planning.plan_service(
                service,
                arguments["catalogue"][service],
                hosts=arguments["hosts"].get(service, []),
                reports=arguments["reports"],
                marks=known,
                wanted=wanted.get(service),
                verdicts=arguments["schema_verdicts"],
                may_be_silent=fleet.may_fail(arguments["hosts"].get(service, [])),
            )
            for service in services
        },
    }
    if arguments["instead_of"]:
        plan["instead_of"] = validate.run_id(arguments["instead_of"], "instead_of")
    without_page = arguments["rolling"] and arguments["policy"]["severities"][severity]["traffic"] == "rolling"
    for part in plan["services"].values():
        part.update(rolling.plan_traffic(part, without_page, fleet))
    plan["balancers"] = planning.balancers_for(plan, arguments["balancers"])
    plan["databases"] = planning.databases_for(plan, arguments["hosts"].get("database", []))
    plan.update(
        session_planning.part(arguments["session_scope"], arguments["session_stores"], arguments["signed_sessions"])
    )
    return plan


def run_to_go_on_with(control: Control, arguments: dict[str, Any]) -> str | None:
    """The run that was named, or the interrupted one that this very request began."""
    if arguments["instead_of"] and not arguments["run_id"]:
        return None
    if not arguments["run_id"]:
        asked = ("environment", "procedure", "severity", "reason", "session_scope")
        return control.interrupted(control_action.operator(), {key: arguments[key] for key in asked})
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
        "rolling": {"type": "bool", "default": False},
        "servers": {"type": "dict", "default": {}},
        "reports": {"type": "dict", "required": True},
        "schema_verdicts": {"type": "dict"},
        "session_scope": session_planning.SCOPE_ARGUMENT,
        "session_stores": {"type": "dict", "default": {}},
        "signed_sessions": {"type": "list", "elements": "dict", "default": []},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        run_id = run_to_go_on_with(control, arguments)
        pinned = pinned_plan(control, run_id) if run_id else None
        plan = pinned or resolve(arguments)
        counted = [] if pinned else session_planning.counted(arguments["session_stores"])
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
            "summary": planning.summary(plan) + counted,
        }
