# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell people of a run; see the module's documentation."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import steps, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control, process_start
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, later, now
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from ansible_collections.marketsage.rollback.plugins.plugin_utils import announcing, control_action, courier, forms
from jinja2 import TemplateError


def channels_for(severity: str, policy: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The channels that hear of a severity and that this environment has."""
    forms.check("rollback_channels", known)
    wanted = policy["announce"]["tell"][severity]
    return {validate.identifier(name, "channels"): known[name] for name in wanted if name in known}


def begin(arguments: dict[str, Any]) -> dict[str, Any]:
    """Queue that the run has begun, and have it delivered while the run goes on."""
    control = Control(arguments["control_dir"])
    announcement = announcing.Announcement(control.directory, validate.run_id(arguments["run"]))
    plan, held = control.plan(announcement.run), control.holder()
    if plan is None or held is None or held["run"] != announcement.run:
        raise Refused(f"run: {announcement.run} is not open")
    channels = channels_for(plan["severity"], arguments["policy"], arguments["channels"])
    if not channels:
        raise BadInput(f"channels: this environment has none of those that the policy names for {plan['severity']}")
    settings, severity = arguments["policy"]["announce"], arguments["policy"]["severities"][plan["severity"]]
    known_before = announcement.outbox.settled(announcement.run) + announcement.outbox.waiting(announcement.run)
    # As long as earlier runs took, else as long as the severity allows.
    expected = sum(steps.estimates(control.path("runs"), plan["procedure"]).values())
    announcement.keep(
        {
            "operator": held["owner"],
            "fence": held["fence"],
            "driver": {"pid": os.getppid(), "started": process_start(os.getppid())},
            "began": held["since"],
            "eta": later(expected or severity["response_time"]),
            "channels": channels,
            "oncall": arguments["oncall"],
            "boxes": settings["boxes"],
            "text": Path(arguments["templates"], "announcement.txt.j2").read_text(),
            "summary": Path(arguments["templates"], "summary.txt.j2").read_text(),
            "acknowledge_within": settings["acknowledge_within"],
            "retry_for": settings["retry_for"],
        }
    )
    announcement.tell("resumed" if known_before else "begun")
    announcement.follow()
    return {"changed": True, "announced": {"control_dir": control.directory, "run": announcement.run}}


def propose(arguments: dict[str, Any]) -> dict[str, Any]:
    """Queue a plan that somebody may approve and carry out, and deliver it at once: no run follows it."""
    control, plan = Control(arguments["control_dir"]), arguments["plan"]
    channels = channels_for(plan["severity"], arguments["policy"], arguments["channels"])
    template = Path(arguments["templates"], "proposal.txt.j2").read_text()
    content = announcing.proposal(plan, arguments["oncall"].get("primary") or {}, template)
    outbox, about = Outbox(control), f"proposal-{content['details']['plan'][:12]}"
    os.makedirs(control.path("runs", about), mode=0o700, exist_ok=True)
    for name in announcing.hearing("proposed", channels):
        outbox.put(about, "proposed", f"{int(time.time())}", name, content)
    courier.deliver(outbox, channels, outbox.waiting(about), courier.DUE)
    waiting = ", ".join(one["channel"] for one in outbox.waiting(about))
    return {"changed": True, "warnings": [f"not told yet: {waiting}; rollback outbox list says why"] if waiting else []}


def acknowledge(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write down who looks after a run, which ends the escalation, and queue that for those who were told."""
    control = Control(arguments["control_dir"])
    announcement = announcing.Announcement(control.directory, validate.run_id(arguments["run"]))
    if control.plan(announcement.run) is None:
        raise BadInput(f"run: there is no run {announcement.run} in {control.directory}")
    if announcement.is_in_hand():
        return {"changed": False}
    by = control_action.operator()
    write_atomically(announcement.path("acknowledged.json"), canonical({"by": by, "time": now()}))
    if announcement.settings:
        announcement.tell("acknowledged", by=by)
        waiting = announcement.outbox.waiting(announcement.run)
        courier.deliver(announcement.outbox, announcement.settings["channels"], waiting, courier.DUE)
    return {"changed": True}


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["begun", "proposed", "acknowledged"]},
        "control_dir": {"type": "path", "required": True},
        "run": {"type": "str"},
        "plan": {"type": "dict"},
        # Checked with the rest of what must not end a run.
        "channels": {"type": "raw", "default": {}},
        "oncall": {"type": "dict", "default": {}},
        "policy": {"type": "dict", "default": {}},
        "templates": {"type": "path"},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [
        ("state", "begun", ["run", "policy", "templates"]),
        ("state", "proposed", ["plan", "policy", "templates"]),
        ("state", "acknowledged", ["run"]),
    ]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": True}
        if arguments["state"] == "acknowledged":
            return acknowledge(arguments)
        try:
            return propose(arguments) if arguments["state"] == "proposed" else begin(arguments)
        except (RollbackError, OSError, TemplateError) as error:
            # Who is not told is told late; who is not rolled back stays broken.
            return {"changed": False, "announced": None, "warnings": [f"nobody is told: {error}"]}
