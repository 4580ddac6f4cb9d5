# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules run without the cost of a process that loads Ansible, for users wait behind the maintenance page meanwhile:
inside the controller where their host is local, and else by their own sources alone, over the host's connection."""
from __future__ import annotations

import ast
import json
import marshal
import re
import shlex
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked
from ansible_collections.marketsage.rollback.plugins.plugin_utils import host_side

_PLUGINS = Path(__file__).parents[1]
_COLLECTION = "marketsage.rollback"
PACKAGE = f"ansible_collections.{_COLLECTION}.plugins"
# What modules import of Ansible, and where it is for them.
_IN_ANSIBLE = "ansible/module_utils/basic.py"
_STAND_IN = f"from {host_side.__name__} import AnsibleModule, missing_required_lib"
# The host's Python reads a request of one line and then the sources, which it keeps in memory alone.
_BOOT = f"""
import json, os, sys
request = json.loads(sys.stdin.buffer.readline())
sources = os.memfd_create("sources")
with open(sources, "wb", closefd=False) as file:
    file.write(sys.stdin.buffer.read())
sys.path.insert(0, f"/proc/{{os.getpid()}}/fd/{{sources}}")
from {host_side.__name__} import main
main(request)
"""
_ZIP_SECONDS = 30
# A path that a host has to expand is left to Ansible.
_EXPANDED = re.compile("[~$]")


class Step(NamedTuple):
    """A module of this collection, and what it is asked."""

    module: ModuleType
    args: dict[str, Any]


class _Checked(host_side.AnsibleModule):
    """Checks its parameters as Ansible's does, and says them instead of doing anything."""

    def __call__(self, argument_spec: dict[str, Any], supports_check_mode: bool = False, **rules: Any) -> NoReturn:
        if self.check_mode and not supports_check_mode:
            raise host_side.Said({"skipped": True, "msg": "does not run in check mode"})
        checked = ArgumentSpecValidator(argument_spec, **rules).validate(self.params)
        if checked.error_messages:
            what = "Unsupported parameters: " if checked.unsupported_parameters else ""
            self.fail_json(msg=what + "; ".join(checked.error_messages))
        raise host_side.Said({"params": checked.validated_parameters})


class _Here(host_side.AnsibleModule):
    def log(self, message: str) -> None:
        """What a module of its own process writes into the system's log is shown at once."""
        Display().display(message)


class HostAction(ActionBase):
    """Carries modules out here when the connection is local and nobody is to be become, else on the host."""

    _supports_check_mode = True
    _supports_async = False

    def carry_out(self, steps: list[Step], task_vars: dict[str, Any]) -> list[dict[str, Any]]:
        """What each step says, up to the first that fails; with wrong parameters of any, that one alone."""
        said = [self._as(_Checked, step) for step in steps]
        if wrong := [result for result in said if "params" not in result]:
            return wrong[:1]
        checked = [Step(step.module, result["params"]) for step, result in zip(steps, said, strict=True)]
        if self._connection.transport == "local" and not self._connection.become:
            results = host_side.until_failed(self._as(_Here, step) for step in checked)
        elif python := self._python(task_vars):
            results = self._over_connection(checked, python)
        else:
            return host_side.until_failed(self._by_ansible(step, task_vars) for step in steps)
        for result in results:
            if not self._task.diff:
                result.pop("diff", None)
        return results

    def _as(self, kind: type[host_side.AnsibleModule], step: Step) -> dict[str, Any]:
        return host_side.carry_out(step.module, kind(step.args, self._task.check_mode, self._task.diff))

    def _by_ansible(self, step: Step, task_vars: dict[str, Any]) -> dict[str, Any]:
        name = f"{_COLLECTION}.{_name(step.module)}"
        result: dict[str, Any] = self._execute_module(module_name=name, module_args=step.args, task_vars=task_vars)
        return result

    def _python(self, variables: dict[str, Any]) -> str | None:
        """The host's Python, where a module can be sent to it and Ansible knows already which it is."""
        if (
            self._task.delegate_to
            or not self._connection.is_pipelining_enabled()
            or _EXPANDED.search(json.dumps(self._task.args, default=str))
        ):
            return None
        named = self._templar.template(C.config.get_config_value("INTERPRETER_PYTHON", variables=variables))
        if named.startswith("auto"):
            return variables.get("ansible_facts", {}).get("discovered_interpreter_python")
        return str(named)

    def _over_connection(self, steps: list[Step], python: str) -> list[dict[str, Any]]:
        request = {
            "steps": [(step.module.__name__, step.args) for step in steps],
            "check_mode": self._task.check_mode,
            "diff": self._task.diff,
        }
        command = f"{self._compute_environment_string()} {shlex.quote(python)} -c {shlex.quote(_BOOT)}"
        sources = _sources([_name(step.module) for step in steps])
        answer = self._low_level_execute_command(command, in_data=json.dumps(request).encode() + b"\n" + sources)
        try:
            said: list[dict[str, Any]] = json.loads("{" + answer["stdout"].rpartition("\n{")[2])["results"]
        except (ValueError, KeyError):
            why = f"{self._task.action} said no result: {answer['stderr'].strip()[-500:]}"
            return [{"failed": True, "msg": why, "rc": answer["rc"]}]
        return said


class InProcessAction(HostAction):
    """Carries MODULE out."""

    MODULE: ModuleType

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self.carry_out([Step(self.MODULE, self._task.args)], task_vars or {})[0])
        return result


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _sources(modules: list[str]) -> bytes:
    """A zip of modules and of what they import of this collection, made once in a run."""
    path = Path(C.DEFAULT_LOCAL_TMP) / f"{'+'.join(modules)}.zip"
    with locked(f"{path}.lock", _ZIP_SECONDS):
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            _write_sources(unfinished, modules)
            unfinished.rename(path)
    return path.read_bytes()


def _write_sources(path: Path, modules: list[str]) -> None:
    files: dict[str, str | bytes] = {_IN_ANSIBLE: _STAND_IN}
    for source in {Path(host_side.__file__), *_with_imports({_PLUGINS / "modules" / f"{name}.py" for name in modules})}:
        name = f"{PACKAGE.replace('.', '/')}/{source.relative_to(_PLUGINS)}"
        files |= {name: source.read_text(), f"{name}c": _compiled(source)}
    packages = {f"{parent}/__init__.py" for name in files for parent in list(PurePosixPath(name).parents)[:-1]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**dict.fromkeys(packages, ""), **files}.items():
            archive.writestr(name, content)


def _with_imports(sources: set[Path]) -> set[Path]:
    """The sources and, through all of them, what they import of this collection, wherever in their text."""
    found: set[Path] = set()
    missing = sources
    while missing:
        found |= missing
        missing = {imported for known in missing for imported in _imports(known)} - found
    return found


def _imports(source: Path) -> Iterator[Path]:
    for statement in ast.walk(ast.parse(source.read_text())):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(PACKAGE):
            within = _PLUGINS.joinpath(*str(statement.module).removeprefix(PACKAGE).split("."))
            named = [within.with_suffix(".py"), *(within / f"{alias.name}.py" for alias in statement.names)]
            yield from (path for path in named if path.is_file())


def _compiled(source: Path) -> bytes:
    """What a Python of this version takes instead of the source (PEP 552), and any other ignores."""
    code = SourceFileLoader(source.stem, str(source)).get_code(source.stem)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)
