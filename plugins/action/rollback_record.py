# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the control host's record of all runs; see the module's documentation."""
from __future__ import annotations

import os
from statistics import median
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    assessment,
    audit,
    criteria,
    planning,
    steps,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action


def about(control: Control, run: str) -> dict[str, Any]:
    """A run in a few words."""
    plan = control.plan(run) or {}
    outcome = control.outcome(run) or {}
    entries = control.entries(run)
    openings = [entry["data"] for entry in entries if entry["step"] == "open"]
    opened: dict[str, Any] = openings[0] if openings else {}
    newest: dict[str, Any] = openings[-1] if openings else {}
    return {
        "run": run,
        "procedure": plan.get("procedure"),
        "severity": plan.get("severity"),
        "reason": plan.get("reason"),
        "owner": newest.get("owner"),
        "taken_over": newest.get("taken_over"),
        "approved_by": control.approved_by(run),
        "state": outcome.get("state", "open"),
        "exit_code": outcome.get("exit_code"),
        "opened": opened.get("since"),
        "closed": outcome.get("closed"),
        "restored_after": restored_after(plan, outcome, entries),
    }


def restored_after(plan: dict[str, Any], outcome: dict[str, Any], entries: list[dict[str, Any]]) -> float | None:
    """Seconds from the opening of a run until traffic was back; None where it did not end well or restored nothing."""
    if outcome.get("state") != "done" or not outcome.get("opened") or plan.get("takes_backup"):
        return None
    back = [one["time"] for one in entries if (one["step"], one["kind"]) == ("maintenance.disabled", "outcome")]
    began, ended = (assessment.seconds(moment) for moment in (outcome["opened"], (back or [outcome["closed"]])[-1]))
    return None if began is None or ended is None else round(ended - began, 1)


def by_month(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each month, newest first: how many runs restored service, and their median time in seconds."""
    months: dict[str, list[float]] = {}
    for run in runs:
        if run["restored_after"] is not None:
            months.setdefault(run["opened"][:7], []).append(run["restored_after"])
    return [
        {"month": month, "runs": len(seconds), "median": round(median(seconds), 1)}
        for month, seconds in sorted(months.items(), reverse=True)
    ]


def shown(control: Control, run: str) -> dict[str, Any]:
    """Everything that is on record of a run."""
    plan, entries = control.plan(run) or {}, control.entries(run)
    watch = read_json(control.path("runs", run, "watch.json"), None)
    return {
        **about(control, run),
        "directory": control.path("runs", run),
        "plan": plan,
        "outcome": control.outcome(run),
        "steps": steps.kept(control.path("runs", run)),
        "journal": entries,
        "watch": watch,
        "criteria": criteria.answered(plan, entries, watch),
        "messages": told(control, run),
    }


def told(control: Control, run: str) -> list[dict[str, Any]]:
    """What was told of a run, delivered or not, oldest first."""
    outbox = Outbox(control)
    known = sorted([*outbox.settled(run), *outbox.waiting(run)], key=lambda one: str(one["created"]))
    return [{key: one[key] for key in ("channel", "event", "state", "created")} for one in known]


def proposed(control: Control) -> list[dict[str, Any]]:
    """The plans that wait for an approval, each with its hash and in lines for a human."""
    directory = control.path("proposals")
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    plans = [read_json(os.path.join(directory, name), {}) for name in names if name.endswith(".json")]
    return [{"hash": planning.plan_hash(plan), "summary": planning.summary(plan), "plan": plan} for plan in plans]


def audited(control: Control) -> dict[str, Any]:
    """Every run's record, verified; Unknown where one of them is not what was written."""
    runs = audit.verify(control)
    spoilt = [f"{one['run']}: {problem}" for one in runs for problem in one["problems"]]
    if spoilt:
        raise Unknown(f"{'; '.join(spoilt)}. Who changed the record?", "Compare it with a backup of the control host.")
    return {"changed": False, "runs": runs}


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["listed", "shown", "proposed", "audited"]},
        "control_dir": {"type": "path", "required": True},
        "run_id": {"type": "str"},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [("state", "shown", ["run_id"])]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        if arguments["state"] == "audited":
            return audited(control)
        if arguments["state"] == "listed":
            runs = [about(control, run) for run in control.runs()]
            return {"changed": False, "runs": runs, "months": by_month(runs)}
        if arguments["state"] == "proposed":
            approvals = control.path("approvals")
            return {"changed": False, "proposals": proposed(control), "approvals": approvals}
        run = validate.run_id(arguments["run_id"])
        if run not in control.runs():
            raise BadInput(f"run_id: there is no run {run} in {control.directory}")
        return {"changed": False, "shown": shown(control, run)}
