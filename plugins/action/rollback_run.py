# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open, gate and close a run on the control host; see the module's documentation."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import approval as approvals
from ansible_collections.marketsage.rollback.plugins.module_utils import (
    audit,
    freeze,
    marks,
    planning,
    rolling,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.approval import Approval, Rules
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control, new_run_id
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import ABORTED, QUEUED
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.files import unreadable
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import now
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action, forms

_GATE_PROOF = "the gate passed and traffic is on"
_BACKUP_PROOF = "a restore of the backup equals what was backed up"


def open_run(control: Control, request: Request, check_mode: bool) -> dict[str, Any]:
    """Take the lock for a new run, or again for an interrupted one; a finished run stays finished."""
    run_id, operator = request.run_id, control_action.operator()
    if request.takeover:
        refuse_no_takeover(control, request)
    control.refuse_other_holder(run_id, operator, request.plan.get("instead_of"), request.takeover)
    if run_id and control.outcome(run_id):
        return {"changed": False, "status": "finished", "run": None, "outcome": control.outcome(run_id)}
    begun = run_id and control.plan(run_id)
    pinned = begun or request.plan
    if not planning.changes_something(pinned):
        return {"changed": False, "status": "nothing", "run": None, "plan": pinned}
    status = "resumed" if begun else "new"
    if check_mode:
        return {"changed": True, "status": status, "run": None, "plan": pinned}
    if request.refusal and not begun:
        raise Refused(request.refusal["msg"], request.refusal["advice"])
    if request.proposes and not begun:
        news = control.propose(planning.plan_hash(pinned), pinned, request.rules.valid_for)
        return {"changed": news, "status": "proposed", "run": None, "plan": pinned}
    approval = None if begun else approval_for(control, request, operator)
    record = control.acquire(
        run_id or new_run_id(pinned["procedure"]), pinned, operator, os.getppid(),
        approval=approval, takeover=request.takeover,
    )  # fmt: skip
    freeze.put(control.freeze_file, record["run"], by=operator, reason=pinned["reason"], seconds=None)
    if pinned.get("instead_of"):
        freeze.lift(control.freeze_file, [pinned["instead_of"]])
    return {
        "changed": status == "new",
        "status": status,
        "run": {"id": record["run"], "fence": record["fence"]},
        "directory": control.path("runs", record["run"]),
        "owner": record["owner"],
        "approved_by": record["approved_by"],
        "plan": pinned,
        "hosts": planning.planned_hosts(pinned, request.first),
        "batches": rolling.sizes(pinned),
    }


@dataclass(frozen=True)
class Request:
    """What an operator wants to open, and by which rules somebody else must have approved it."""

    plan: dict[str, Any]
    run_id: str | None
    takeover: str | None
    approval: str | None
    rules: Rules
    refusal: dict[str, Any] | None = None
    first: list[str] | None = None
    proposes: bool = False

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Request:
        run_id = arguments["run_id"] and validate.run_id(arguments["run_id"])
        takeover = arguments["takeover"] and validate.reason(arguments["takeover"], "takeover")
        plan = arguments["plan"]
        rules = Rules(
            plan["approval"]["roles"],
            arguments["approval_valid_for"],
            arguments["people"],
            arguments["allowed_signers"] or None,
            arguments["revoked_signers"] or None,
        )
        refusal, first = arguments["refusal"], arguments["first"]
        return cls(plan, run_id, takeover, arguments["approval"] or None, rules, refusal, first, arguments["propose"])


def refuse_what_no_gate_can_ask(arguments: dict[str, Any]) -> None:
    """BadInput where a line of the checklists is not as it must be, or where it is asked or a secret is not known."""
    from ansible_collections.marketsage.rollback.plugins.module_utils import checks, probes  # noqa: PLC0415  slow to load

    forms.check("rollback_checklists", arguments["checklists"])
    for name, lines in arguments["checklists"].items():
        for line in lines:
            probes.kind_of(line)
            checks.refuse_unknown_names(line, arguments["secret_files"])
            checks.refuse_unknown_addresses(line, arguments["addresses"])
            checks.refuse_unknown_addresses(line, arguments["gate_addresses"].get(name, arguments["addresses"]))
    if lacking := unreadable(arguments["secret_files"], "secret_files"):
        raise BadInput("; ".join(lacking))


def refuse_no_takeover(control: Control, request: Request) -> None:
    """Refused where the run that is to be taken over is not the open one."""
    held = control.holder()
    if held is None or held["run"] != request.run_id:
        open_one = f"the open run is {held['run']}" if held else "no run is open"
        raise Refused(f"takeover: there is no open run {request.run_id} to take over; {open_one}")


def approval_for(control: Control, request: Request, operator: str) -> Approval | None:
    """The approval of the plan, checked; refused where the severity requires one and there is none."""
    need = request.plan["approval"]["need"]
    plan_hash = planning.plan_hash(request.plan)
    if request.approval:
        return approvals.check(request.approval, plan_hash, operator, request.rules)
    given = control.given_approval(plan_hash)
    if need == "preferred" and given:
        return approvals.good_or_none(given, plan_hash, operator, request.rules)
    if need == "required" and given:
        return approvals.check(given, plan_hash, operator, request.rules)
    if need == "required":
        control.propose(plan_hash, request.plan, request.rules.valid_for)
        asked = ", ".join(request.rules.approvers(operator)) or "nobody in the inventory has that role"
        raise Refused(
            f"approval: {request.plan['severity']} needs that of {' or '.join(request.rules.roles)} ({asked})",
            f"Let one of them run: rollback approve {plan_hash[:12]}; then run the same command again.",
        )
    return None


def of_open_run(control: Control, run: Run) -> dict[str, Any]:
    """The pinned plan of the run that a task works for."""
    plan = control.plan(run.id)
    if plan is None:
        raise BadInput(f"run: there is no run {run.id} in {control.directory}")
    return plan


def gate_run(control: Control, run: Run, reports: dict[str, Any]) -> dict[str, Any]:
    """Held unless every planned host proved the planned release."""
    complaints = planning.verify_reports(of_open_run(control, run), reports)
    if complaints:
        raise Held(
            f"health gate: {'; '.join(complaints)}",
            f"Traffic stays as it is. Repair it and 'rollback resume {run.id}', or name another release.",
        )
    with run.change("gate", {"hosts": sorted(reports)}) as change:
        change.outcome = {"passed": sorted(reports)}
    return {"changed": False, "passed": sorted(reports)}


def withdraw(control: Control, run: Run, reports: dict[str, Any]) -> dict[str, Any]:
    """Mark as bad what did not pass its gate and is live no more; always Held, with what kept the gate closed."""
    plan = of_open_run(control, run)
    said = "; ".join(f"{host}: {planning.why_closed(report)}" for host, report in reports.items())
    with run.change("withdrawn", {"because": said}) as change:
        change.outcome = {
            service: marks.mark(control.marks_file, service, part["to"]["commit"], "bad", by=run.id, reason=said[:300])
            for service, part in plan["services"].items()
        }
    part = next(iter(plan["services"].values()))
    live, what = planning.name_of(part["from"][0]), plan.get("component", "the target")
    raise Held(
        f"{said}. {live} was put back and serves as before",
        f"Perhaps {what} is not what is broken: name another component or roll the whole service back, "
        f"with --instead-of {run.id}.",
    )


def next_batch(control: Control, run: Run, arguments: dict[str, Any]) -> dict[str, Any]:
    """Which batch it is; Held where more of the hosts before it failed than the plan lets."""
    plan = of_open_run(control, run)
    ((service, order),) = rolling.of_plan(plan).items()
    hosts, batch = arguments["hosts"], arguments["batch"]
    complaints = planning.unproved(plan["services"][service], arguments["reports"])
    rolling.stop_after_failures(order, hosts, batch, complaints)
    return {"changed": False, "batch": rolling.place_of(batch, hosts, order)}


def close_run(control: Control, run: Run, arguments: dict[str, Any]) -> dict[str, Any]:
    """Mark what was left as bad and what is live as good, write the outcome, free the lock."""
    plan = of_open_run(control, run)
    gate_run(control, run, arguments["reports"])
    reversal = plan.get("reverses", {}).get("how")
    if reversal != "abort":
        mark_releases(control, run, plan, leaves_bad=reversal is None)
    aborted = reversal == "abort" or arguments["given_up"]
    outcome = outcome_of(control, run, plan, aborted, arguments)
    # A backup leaves in production what was there.
    seconds = 0 if plan.get("takes_backup") else arguments["freeze_for"]
    reason = f"after {run.id}: {plan['reason']}"
    freeze.put(control.freeze_file, run.id, by=control_action.operator(), reason=reason, seconds=seconds)
    control.release(run.id, run.fence, outcome)
    return {"changed": True, "outcome": outcome}


def mark_releases(control: Control, run: Run, plan: dict[str, Any], leaves_bad: bool) -> None:
    """What the gate proved is good; what a rollback left is bad, what an undo left is as good as it was."""
    for service in planning.changed_services(plan):
        part = plan["services"][service]
        for release in part["from"] if leaves_bad else []:
            if release["commit"] != part["to"]["commit"]:
                marks.mark(control.marks_file, service, release["commit"], "bad", by=run.id, reason=plan["reason"])
        proven = part["to"]["commit"]
        marks.mark(control.marks_file, service, proven, "good", by=run.id, reason="passed the health gate")


def outcome_of(
    control: Control, run: Run, plan: dict[str, Any], aborted: bool, arguments: dict[str, Any]
) -> dict[str, Any]:
    """How the run ended; `undone` of the arguments are the side duties that could not be done."""
    undone = arguments["undone"]
    held = control.holder() or {}
    return {
        "state": "aborted" if aborted else "done",
        "exit_code": ABORTED if aborted else (QUEUED if undone else 0),
        "run": run.id,
        "proof": _BACKUP_PROOF if plan.get("takes_backup") else _GATE_PROOF,
        "owner": held.get("owner"),
        "opened": held.get("since"),
        "closed": now(),
        "approval": {**plan["approval"], "given_by": control.approved_by(run.id)},
        "undone": undone,
        "notes": arguments["notes"],
        "left_to_do": planning.left_to_do(plan),
        "journals": audit.heads(control.path("runs", run.id, "journals")),
    }


def status(control: Control) -> dict[str, Any]:
    """The lock, the marks and the freeze, as they are now."""
    return {
        "changed": False,
        "holder": control.holder(),
        "marks": marks.load(control.marks_file),
        "frozen": freeze.active(control.freeze_file),
        "runs": control.runs(),
    }


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {
            "type": "str",
            "required": True,
            "choices": ["status", "opened", "next", "gated", "withdrawn", "closed"],
        },
        "control_dir": {"type": "path", "required": True},
        "plan": {"type": "dict"},
        "checklists": {"type": "dict", "default": {}},
        "addresses": {"type": "dict", "default": {}},
        "gate_addresses": {"type": "dict", "default": {}},
        "secret_files": {"type": "dict", "default": {}, "no_log": False},
        "run_id": {"type": "str"},
        "takeover": {"type": "str"},
        "propose": {"type": "bool", "default": False},
        "approval": {"type": "path"},
        "approval_valid_for": {"type": "int", "default": 3600},
        "people": {"type": "dict", "default": {}},
        "allowed_signers": {"type": "path"},
        "revoked_signers": {"type": "path"},
        "freeze_for": {"type": "int", "default": 0},
        "undone": {"type": "list", "elements": "str", "default": []},
        "notes": {"type": "list", "elements": "str", "default": []},
        "run": {
            "type": "dict",
            "options": {"id": {"type": "str", "required": True}, "fence": {"type": "int", "required": True}},
        },
        "reports": {"type": "dict"},
        "hosts": {"type": "list", "elements": "str"},
        "batch": {"type": "list", "elements": "str"},
        "first": {"type": "list", "elements": "str", "default": []},
        "refusal": {"type": "dict"},
        "given_up": {"type": "bool", "default": False},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [
        ("state", "opened", ["plan"]),
        ("state", "next", ["run", "reports", "hosts", "batch"]),
        ("state", "gated", ["run", "reports"]),
        ("state", "withdrawn", ["run", "reports"]),
        ("state", "closed", ["run", "reports"]),
    ]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        if arguments["state"] == "status":
            return status(control)
        if arguments["state"] == "opened":
            refuse_what_no_gate_can_ask(arguments)
            return open_run(control, Request.of(arguments), self._task.check_mode)
        run = Run(arguments["run"]["id"], arguments["run"]["fence"], control.directory)
        if arguments["state"] in ("closed", "next"):
            return {"closed": close_run, "next": next_batch}[arguments["state"]](control, run, arguments)
        work = {"gated": gate_run, "withdrawn": withdraw}[arguments["state"]]
        return work(control, run, arguments["reports"])
