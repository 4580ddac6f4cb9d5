# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several modules on a host in one go; see the module's documentation."""
from __future__ import annotations

import importlib
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, outcome_of
from ansible_collections.marketsage.rollback.plugins.plugin_utils.in_process import PACKAGE, HostAction, Step


class ActionModule(HostAction):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(outcome_of(lambda: self._carried_out(task_vars or {})))
        return result

    def _carried_out(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        wanted = {"steps": {"type": "list", "elements": "dict", "required": True}}
        _checked, arguments = self.validate_argument_spec(wanted)
        said = self.carry_out([_step(step) for step in arguments["steps"]], task_vars)
        return {
            **(said[-1] if said[-1].get("failed") else {}),
            "changed": any(one.get("changed") for one in said),
            "warnings": [warning for one in said for warning in one.pop("warnings", [])],
            "diff": [one.pop("diff") for one in said if "diff" in one],
            "steps": said,
        }


def _step(step: dict[str, Any]) -> Step:
    """The module that a step names, and its parameters."""
    if len(step) != 1:
        raise BadInput(f"steps: {', '.join(step) or 'an empty step'} must be one module")
    [(name, args)] = step.items()
    try:
        module = importlib.import_module(f"{PACKAGE}.action.{name}").ActionModule.MODULE
    except (ImportError, AttributeError):
        raise BadInput(f"steps: {name} is not a module of this collection for hosts") from None
    return Step(module, args or {})
