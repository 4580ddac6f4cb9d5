# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module of this collection needs of Ansible to do its work, without Ansible: on a host, importing that and
compiling it anew takes several times as long as what most modules do."""
from __future__ import annotations

import importlib
import json
import platform
import sys
import syslog
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NoReturn


class Said(BaseException):
    """The module has said its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class AnsibleModule:
    """What a module's main() uses of AnsibleModule; its parameters have been checked."""

    def __init__(self, params: dict[str, Any], check_mode: bool, diff: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self._diff = diff
        self._warnings: list[str] = []

    def __call__(self, argument_spec: dict[str, Any], **rules: Any) -> AnsibleModule:
        return self

    def warn(self, warning: str) -> None:
        self._warnings.append(warning)

    def log(self, message: str) -> None:
        syslog.syslog(syslog.LOG_INFO, message)

    def exit_json(self, **result: Any) -> NoReturn:
        raise Said({"changed": False, "warnings": self._warnings, **result})

    def fail_json(self, **result: Any) -> NoReturn:
        raise Said({"failed": True, "warnings": self._warnings, **result})


def missing_required_lib(library: str, reason: str) -> str:
    """As Ansible says it."""
    return (
        f"Failed to import the required Python library ({library}) on {platform.node()}'s Python {sys.executable}."
        f" This is required {reason}. Please read the module documentation and install it in the appropriate location."
    )


def carry_out(module: ModuleType, ansible_module: AnsibleModule) -> dict[str, Any]:
    """What the main() of a module's Python says with `ansible_module` in the place of Ansible's."""
    module.AnsibleModule = ansible_module  # type: ignore[attr-defined]
    try:
        module.main()
    except Said as said:
        return said.result
    return {"failed": True, "msg": f"{module.__name__} said no result"}


def until_failed(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results up to the first that failed; what comes after it is not asked for."""
    said = []
    for result in results:
        said.append(result)
        if result.get("failed"):
            break
    return said


def main(request: dict[str, Any]) -> None:
    """Carry a request out on this host, and print its results as the last line of standard output."""

    def result(name: str, params: dict[str, Any]) -> dict[str, Any]:
        syslog.openlog(f"ansible-{name.rpartition('.')[2]}")
        return carry_out(importlib.import_module(name), AnsibleModule(params, request["check_mode"], request["diff"]))

    results = until_failed(result(name, params) for name, params in request["steps"])
    print(f"\n{json.dumps({'results': results})}")
