# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module that only talks to an API, a socket or a database runs inside the controller when its host is local.

A process of its own costs ten times what such a module does, and users wait behind the maintenance page meanwhile.
"""
from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class _Exit(BaseException):
    """The module has said its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class _Module:
    """What a module's main() uses of AnsibleModule."""

    def __init__(self, arguments: dict[str, Any], check_mode: bool, diff: bool) -> None:
        self._arguments = arguments
        self._diff = diff
        self.check_mode = check_mode
        self.params: dict[str, Any] = {}
        self._warnings: list[str] = []

    def __call__(self, argument_spec: dict[str, Any], supports_check_mode: bool = False, **rules: Any) -> _Module:
        if self.check_mode and not supports_check_mode:
            raise _Exit({"skipped": True, "msg": "does not run in check mode"})
        checked = ArgumentSpecValidator(argument_spec, **rules).validate(self._arguments)
        if checked.error_messages:
            self.fail_json(msg="; ".join(checked.error_messages))
        self.params = checked.validated_parameters
        return self

    def warn(self, warning: str) -> None:
        self._warnings.append(warning)

    def log(self, message: str) -> None:
        """What a module of its own process writes into the system's log is shown at once."""
        Display().display(message)

    def exit_json(self, **result: Any) -> NoReturn:
        raise _Exit({"changed": False, "warnings": self._warnings, **result})

    def fail_json(self, **result: Any) -> NoReturn:
        raise _Exit({"failed": True, "warnings": self._warnings, **result})


class InProcessAction(ActionBase):
    """Run MODULE here when the connection is local and nobody is to be become, else on its host as ever."""

    _supports_check_mode = True
    _supports_async = False
    MODULE: Any

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._connection.transport != "local" or self._connection.become:
            return {**result, **self._execute_module(task_vars=task_vars)}
        module = _Module(self._task.args, self._task.check_mode, self._task.diff)
        self.MODULE.AnsibleModule = module
        try:
            self.MODULE.main()
        except _Exit as said:
            result.update(said.result)
        if not self._task.diff:
            result.pop("diff", None)
        return result
