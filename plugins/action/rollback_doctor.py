# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say whether everything that a P0 needs is there; see the module's documentation."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import marks, planning
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.files import unreadable
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action

_GIB = 1024**3

Result = dict[str, Any]


def result(name: str, good: bool, evidence: str) -> Result:
    return {"name": name, "status": "passed" if good else "failed", "evidence": evidence}


def of_services(arguments: dict[str, Any], known: dict[str, Any]) -> Iterator[Result]:
    """Whether each host of a service can be read, and can go back without a build and without the internet."""
    for service in arguments["catalogue"]:
        for host in arguments["hosts"].get(service, []):
            report = arguments["reports"].get(host) or {}
            if "candidates" not in report:
                yield result(f"{host}: its releases", False, str(report.get("msg") or "could not be read"))
                continue
            ready = [one for one in report["candidates"] if is_ready(one, known, service)]
            evidence = ", ".join(str(one.get("ref") or one["commit"][:12]) for one in ready[:3]) or "none"
            yield result(f"{host}: a release to go back to at once", bool(ready), evidence)
            if "host" in report:
                yield of_secrets(host, report["host"]["unreadable"])


def is_ready(candidate: dict[str, Any], known: dict[str, Any], service: str) -> bool:
    """Whether it is built here, or its image is kept, and nobody marked it bad."""
    usable = candidate.get("can_rollback", candidate.get("built", False))
    return bool(usable and candidate.get("commit")) and planning.mark_of(known, service, candidate["commit"]) != "bad"


def of_readings(arguments: dict[str, Any]) -> Iterator[Result]:
    """The database's schema and the balancers, as they answered just now."""
    if arguments["hosts"].get("database"):
        verdicts = arguments["schema_verdicts"]
        yield result("database: its schema", bool(verdicts), f"{len(verdicts)} releases compared")
    for host, read in arguments["balancers"].items():
        known = read.get("enabled") is not None
        yield result(f"{host}: the maintenance page", known, "can be switched" if known else str(read.get("msg")))


def of_hosts(arguments: dict[str, Any]) -> Iterator[Result]:
    """Clocks and disks."""
    for host, facts in arguments["facts"].items():
        skew, free = facts.get("skew"), facts.get("free")
        if skew is None or free is None:
            yield result(f"{host}: clock and disk", False, "could not be read")
            continue
        yield result(f"{host}: clock", abs(skew) <= arguments["longest_skew"], f"{skew} s from this one")
        yield result(f"{host}: disk", free >= arguments["least_free"], f"{free / _GIB:.1f} GiB free")


def of_control(control: Control, arguments: dict[str, Any]) -> Iterator[Result]:
    """This host: its record, the secrets, and what approvals are checked with."""
    os.makedirs(control.directory, mode=0o700, exist_ok=True)
    free = shutil.disk_usage(control.directory).free
    yield result("control host: disk for the record", free >= arguments["least_free"], f"{free / _GIB:.1f} GiB free")
    held = control.holder()
    yield result("control host: lock", held is None, f"run {held['run']} of {held['owner']}" if held else "free")
    yield of_secrets("control host", unreadable(arguments["secret_files"], "secret_files"))
    keygen, signers = shutil.which("ssh-keygen"), arguments["allowed_signers"]
    can_check = bool(keygen and signers and os.path.isfile(signers))
    evidence = str(signers) if can_check else "no ssh-keygen or allowed signers"
    yield result("approvals can be checked", can_check, evidence)


def of_secrets(host: str, lacking: list[str]) -> Result:
    return result(f"{host}: secrets of the checklists", not lacking, "; ".join(lacking) or "private and readable")


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "control_dir": {"type": "path", "required": True},
        "catalogue": {"type": "dict", "required": True},
        "hosts": {"type": "dict", "required": True},
        "reports": {"type": "dict", "required": True},
        "balancers": {"type": "dict", "default": {}},
        "schema_verdicts": {"type": "dict", "default": {}},
        "facts": {"type": "dict", "default": {}},
        "secret_files": {"type": "dict", "default": {}, "no_log": False},
        "allowed_signers": {"type": "path"},
        "longest_skew": {"type": "int", "default": 5},
        "least_free": {"type": "int", "default": _GIB},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        known = marks.load(control.marks_file)
        examined = [
            *of_services(arguments, known),
            *of_readings(arguments),
            *of_hosts(arguments),
            *of_control(control, arguments),
        ]
        return {"changed": False, "examined": examined}
