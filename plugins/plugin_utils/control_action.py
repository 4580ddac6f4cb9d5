# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the actions on the control host's own record share: they run in the controller, most without a connection."""
from __future__ import annotations

import os
import pwd
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, outcome_of

_NO_SESSION = 2**32 - 1


def operator() -> str:
    """Who is logged in here, as the kernel keeps it; without a login session sudo's caller, or the process's user."""
    session = _login_session()
    if session is not None:
        return pwd.getpwuid(session).pw_name
    caller = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return caller or pwd.getpwuid(os.getuid()).pw_name


def _login_session() -> int | None:
    """The user id that logged in; None outside of a login session, and where the kernel keeps none."""
    try:
        with open("/proc/self/loginuid") as file:
            session = int(file.read())
    except FileNotFoundError:
        return None
    return None if session == _NO_SESSION else session


class ControlAction(ActionBase):
    """An action whose work is one function of its checked arguments."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    ARGUMENTS: ClassVar[dict[str, Any]] = {}
    REQUIRED_IF: ClassVar[list[Any]] = []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(outcome_of(lambda: self.work(self._checked_arguments())))
        return result

    def _checked_arguments(self) -> dict[str, Any]:
        try:
            _checked, arguments = self.validate_argument_spec(
                argument_spec=self.ARGUMENTS, required_if=self.REQUIRED_IF
            )
        except AnsibleActionFail as error:
            raise BadInput(str(error)) from None
        return dict(arguments)

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the action does with its arguments; raises RollbackError."""
        raise NotImplementedError
