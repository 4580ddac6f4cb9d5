# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the actions on the control host's own record share: they run in the controller, without a connection."""
from __future__ import annotations

import getpass
import os
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import outcome_of


def operator() -> str:
    """Who is logged in here: the account behind sudo where there is one."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


class ControlAction(ActionBase):
    """An action whose work is one function of its checked arguments."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    ARGUMENTS: ClassVar[dict[str, Any]] = {}
    REQUIRED_IF: ClassVar[list[Any]] = []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS, required_if=self.REQUIRED_IF)
        result.update(outcome_of(lambda: self.work(arguments)))
        return result

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the action does with its arguments; raises RollbackError."""
        raise NotImplementedError
