# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mark a release good or bad, in the name of who is logged in; see the module's documentation."""
from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import marks, planning, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action


def named(releases: dict[str, list[dict[str, Any]]], word: str) -> tuple[str, str]:
    """The service and commit of the one release that an operator's word means."""
    found = {
        (service, release["commit"])
        for service, known in releases.items()
        for release in known
        if release.get("commit") and planning.is_named(release, word)
    }
    if len(found) != 1:
        many = f"means releases of {', '.join(sorted(service for service, _commit in found))}; name a service"
        raise BadInput(f"release: {word!r} {many if found else 'is live on no host and was on none'}")
    return found.pop()


def releases_in(reports: dict[str, Any], hosts: dict[str, list[str]], service: str) -> dict[str, list[dict[str, Any]]]:
    """What is or was live, by service; only of `service` where one is named."""
    read = {name: [reports.get(host) or {} for host in members] for name, members in hosts.items()}
    return {
        name: [one for report in said for one in [report.get("live"), *report.get("candidates", [])] if one]
        for name, said in read.items()
        if service in ("", name)
    }


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "control_dir": {"type": "path", "required": True},
        "release": {"type": "str", "required": True},
        "mark": {"type": "str", "required": True},
        "reason": {"type": "str", "required": True},
        "service": {"type": "str", "default": ""},
        "hosts": {"type": "dict", "required": True},
        "reports": {"type": "dict", "required": True},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        word, reason = validate.ref(arguments["release"], "release"), validate.reason(arguments["reason"])
        mark = arguments["mark"]
        if mark not in marks.MARKS:
            raise BadInput(f"mark: {mark!r} is not one of {', '.join(marks.MARKS)}")
        service, commit = named(releases_in(arguments["reports"], arguments["hosts"], arguments["service"]), word)
        before = marks.load(control.marks_file).get(service, {}).get(commit)
        changes = (before or {}).get("mark") != mark
        if changes and not self._task.check_mode:
            with control.operation("mark").change("mark", {"service": service, "commit": commit, "mark": mark}):
                marks.mark(control.marks_file, service, commit, mark, by=control_action.operator(), reason=reason)
        return {
            "changed": changes,
            "service": service,
            "commit": commit,
            "mark": marks.load(control.marks_file).get(service, {}).get(commit),
            "diff": {"before": {"mark": (before or {}).get("mark")}, "after": {"mark": mark}},
        }
