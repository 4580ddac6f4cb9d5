# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hold deploys back, let them go on, or ask; see the module's documentation."""
from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import freeze, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action


def frozen(control: Control, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Hold deploys back in the operator's name."""
    reason, operator = validate.reason(arguments["reason"]), control_action.operator()
    seconds = validate.positive(arguments["seconds"], "seconds")
    if seconds > arguments["longest"]:
        raise BadInput(f"seconds: {seconds} is more than the {arguments['longest']} that the policy allows")
    if check_mode:
        return {"changed": True, "run": None}
    run = control.operation("freeze")
    with run.change("freeze", {"by": operator, "reason": reason, "seconds": seconds}) as change:
        change.outcome = freeze.put(control.freeze_file, operator, by=operator, reason=reason, seconds=seconds)
    return {"changed": True, "run": {"id": run.id, "fence": run.fence}}


def lifted(control: Control, check_mode: bool) -> dict[str, Any]:
    """Let deploys go on; what an open run holds back stays so."""
    entries = freeze.load(control.freeze_file)
    gone = [name for name, entry in entries.items() if entry["until"] is not None or control.outcome(name)]
    kept = [entry for name, entry in entries.items() if name not in gone]
    if kept:
        held_by = f"{kept[0]['by']} has an open run ({kept[0]['reason']})"
        raise Refused(f"freeze: {held_by}", "Deploys go on when it has ended.")
    if check_mode:
        return {"changed": bool(gone), "run": None}
    run = control.operation("unfreeze")
    with run.change("unfreeze", {"by": control_action.operator(), "lifted": gone}) as change:
        freeze.lift(control.freeze_file, gone)
        change.outcome = {"frozen": freeze.active(control.freeze_file)}
    return {"changed": bool(gone), "run": {"id": run.id, "fence": run.fence}}


def asked(control: Control) -> dict[str, Any]:
    """Refused where deploys are held back."""
    holding = freeze.active(control.freeze_file)
    if holding:
        one = holding[0]
        until = f"until {one['until']}" if one["until"] else "while a run is open"
        raise Refused(f"deploys are frozen by {one['by']} since {one['since']} {until}: {one['reason']}")
    return {"changed": False, "run": None}


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["frozen", "lifted", "asked"]},
        "control_dir": {"type": "path", "required": True},
        "reason": {"type": "str", "default": ""},
        "seconds": {"type": "int"},
        "longest": {"type": "int", "default": 86400},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [("state", "frozen", ["reason", "seconds"])]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        if arguments["state"] == "asked":
            return asked(control)
        if arguments["state"] == "lifted":
            return lifted(control, self._task.check_mode)
        return frozen(control, arguments, self._task.check_mode)
