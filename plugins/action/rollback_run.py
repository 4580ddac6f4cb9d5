# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open, gate and close a run on the control host; see the module's documentation."""
from __future__ import annotations

import os
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    marks,
    planning,
    rolling,
    session_planning,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control, new_run_id
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import now
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action


def open_run(control: Control, plan: dict[str, Any], run_id: str | None, check_mode: bool) -> dict[str, Any]:
    """Take the lock for a new run, or again for an interrupted one; a finished run stays finished."""
    control.refuse_other_holder(run_id, plan.get("instead_of"))
    if run_id and control.outcome(run_id):
        return {"changed": False, "status": "finished", "run": None, "outcome": control.outcome(run_id)}
    pinned = (run_id and control.plan(run_id)) or plan
    if not planning.changes_something(pinned):
        return {"changed": False, "status": "nothing", "run": None, "plan": pinned}
    status = "resumed" if run_id and control.plan(run_id) else "new"
    if check_mode:
        return {"changed": True, "status": status, "run": None, "plan": pinned}
    record = control.acquire(run_id or new_run_id(plan["procedure"]), pinned, control_action.operator(), os.getppid())
    run = {"id": record["run"], "fence": record["fence"]}
    return {
        "changed": status == "new",
        "status": status,
        "run": run,
        "owner": record["owner"],
        "plan": pinned,
        "hosts": planning.planned_hosts(pinned),
        "batches": rolling.sizes(pinned),
    }


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


def next_batch(control: Control, run: Run, batch: list[str], reports: dict[str, Any]) -> dict[str, Any]:
    """Held before a batch of hosts where more of those before it failed than the plan lets."""
    plan = of_open_run(control, run)
    for service, order in rolling.of_plan(plan).items():
        rolling.stop_after_failures(order, batch, planning.unproved(plan["services"][service], reports))
    return {"changed": False}


def close_run(control: Control, run: Run, reports: dict[str, Any]) -> dict[str, Any]:
    """Mark what was left as bad and what is live as good, write the outcome, free the lock."""
    plan = of_open_run(control, run)
    gate_run(control, run, reports)
    for service in planning.changed_services(plan):
        part = plan["services"][service]
        for release in part["from"]:
            if release["commit"] != part["to"]["commit"]:
                marks.mark(control.marks_file, service, release["commit"], "bad", by=run.id, reason=plan["reason"])
        proven = part["to"]["commit"]
        marks.mark(control.marks_file, service, proven, "good", by=run.id, reason="passed the health gate")
    held = control.holder() or {}
    outcome = {"state": "done", "exit_code": 0, "run": run.id, "opened": held.get("since"), "closed": now()}
    outcome["left_to_do"] = session_planning.left_to_do(plan)
    control.release(run.id, run.fence, outcome)
    return {"changed": True, "outcome": outcome}


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["status", "opened", "next", "gated", "closed"]},
        "control_dir": {"type": "path", "required": True},
        "plan": {"type": "dict"},
        "run_id": {"type": "str"},
        "run": {
            "type": "dict",
            "options": {"id": {"type": "str", "required": True}, "fence": {"type": "int", "required": True}},
        },
        "reports": {"type": "dict"},
        "batch": {"type": "list", "elements": "str"},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [
        ("state", "opened", ["plan"]),
        ("state", "next", ["run", "reports", "batch"]),
        ("state", "gated", ["run", "reports"]),
        ("state", "closed", ["run", "reports"]),
    ]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        if arguments["state"] == "status":
            return {"changed": False, "holder": control.holder(), "marks": marks.load(control.marks_file)}
        if arguments["state"] == "opened":
            run_id = arguments["run_id"] and validate.run_id(arguments["run_id"])
            return open_run(control, arguments["plan"], run_id, self._task.check_mode)
        run = Run(arguments["run"]["id"], arguments["run"]["fence"], control.directory)
        if arguments["state"] == "next":
            return next_batch(control, run, arguments["batch"], arguments["reports"])
        finish = gate_run if arguments["state"] == "gated" else close_run
        return finish(control, run, arguments["reports"])
