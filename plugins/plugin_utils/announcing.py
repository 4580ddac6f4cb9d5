# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of a run: the communication template, filled from the run's plan and from the steps done so far."""
from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import planning
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, now
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_COURIER = "ansible_collections.marketsage.rollback.plugins.plugin_utils.courier"
COURIER_LOCK = "courier.lock"
_IMPORT_ROOT = Path(__file__).parents[5]
_COURIER_VARIABLES = ("HOME", "LANG", "PATH", "TZ")
# The channels that hear of an event; of any other every channel does. Only Slack's bot changes one message as the run
# goes on, elsewhere each step would be one more.
_HEARD_BY = {
    "progress": ("slack",),
    "acknowledged": ("slack", "slack_webhook", "pagerduty", "webhook"),
    "proposed": ("slack", "slack_webhook", "webhook"),
}
# How long the end of a run looks whether its last message goes out. Everything else is done and unlocked by then.
_LAST_LOOK_SECONDS = 5.0


def ticked(boxes: list[dict[str, Any]], steps: dict[str, str]) -> list[dict[str, str]]:
    """Each action box as name and state: done, open, or "not needed" where none of its steps had anything to do."""
    return [{"name": box["name"], "state": _box_state(box, steps)} for box in boxes]


def _box_state(box: dict[str, Any], steps: dict[str, str]) -> str:
    if "begun" in box:
        status = {steps.get(name, "skipped") for name in box["begun"]}
        enough = bool(status & {"running", "done", "failed"})
    else:
        status = {steps.get(name, "skipped") for name in box["done"]}
        enough = "done" in status and status <= {"done", "skipped"}
    if enough:
        return "done"
    return "not needed" if status == {"skipped"} else "open"


def hearing(event: str, channels: dict[str, Any]) -> list[str]:
    """Which of these channels hear of an event."""
    return [name for name, one in channels.items() if event not in _HEARD_BY or one.get("type") in _HEARD_BY[event]]


def proposal(plan: dict[str, Any], contact: dict[str, Any], template: str) -> dict[str, Any]:
    """The content of a message that proposes a plan, with the commands to approve it and to carry it out."""
    details = {
        "plan": planning.plan_hash(plan),
        "environment": plan["environment"],
        "procedure": plan["procedure"],
        "services": planning.changed_services(plan) or [plan["procedure"]],
        "reason": plan["reason"],
        "command": f"rollback run {plan['procedure']} -s {plan['severity']} -r {shlex.quote(plan['reason'])}",
    }
    summary = f"{plan['severity']} rollback proposed: {', '.join(details['services'])} in {plan['environment']}"
    values = {**details, "severity": plan["severity"], "approval": plan["approval"], "contact": contact}
    return {
        "text": _render(template, {**values, "lines": planning.summary(plan)[1:]}),
        "summary": summary,
        "severity": plan["severity"],
        "to": contact,
        "details": details,
    }


class Announcement:
    """A run's messages. What they are made of is kept with the run when it begins:

    operator, fence, driver (pid, started), began and eta (ISO 8601), channels (name -> settings), oncall, boxes,
    text and summary (the templates), acknowledge_within and retry_for (seconds).
    """

    def __init__(self, control_dir: str, run: str) -> None:
        self.control = Control(control_dir)
        self.run = run
        self.outbox = Outbox(self.control)
        self.settings: dict[str, Any] = read_json(self.path("announcement.json"), {})

    def path(self, name: str) -> str:
        return self.control.path("runs", self.run, name)

    def keep(self, settings: dict[str, Any]) -> None:
        """Keep what the run's messages are made of; no box is ticked yet, and nobody has acknowledged."""
        self.settings = settings
        with suppress(FileNotFoundError):
            os.unlink(self.path("acknowledged.json"))
        write_atomically(self.path("announcement.json"), canonical(settings))
        self._keep_boxes([{"name": box["name"], "state": "open"} for box in settings["boxes"]])

    def _keep_boxes(self, boxes: list[dict[str, str]]) -> None:
        write_atomically(self.path("boxes.json"), canonical(boxes))

    def boxes(self) -> list[dict[str, str]]:
        """The action boxes as they were ticked last."""
        boxes: list[dict[str, str]] = read_json(self.path("boxes.json"), [])
        return boxes

    def progress(self, steps: dict[str, str]) -> None:
        """Tell that boxes were ticked, where any was."""
        if self.keep_ticked(steps):
            self.tell("progress", str(sum(box["state"] != "open" for box in self.boxes())))

    def keep_ticked(self, steps: dict[str, str]) -> bool:
        """Tick the boxes by the steps done so far; whether that changed any."""
        boxes = ticked(self.settings["boxes"], steps)
        changed = boxes != self.boxes()
        if changed:
            self._keep_boxes(boxes)
        return changed

    def tell(self, event: str, number: str = "", *, why: str = "", to: str = "primary", by: str = "") -> None:
        """Queue what there is to say on every channel that hears of it; `to` is who of those on call is told."""
        content = self._content(event, why, to, by)
        occasion = f"{self.settings['fence']}-{number}" if number else str(self.settings["fence"])
        for name in hearing(event, self.settings["channels"]):
            self.outbox.put(self.run, event, occasion, name, content)

    def is_current(self) -> bool:
        """Whether the record is still there, and the run was not opened again since."""
        kept = read_json(self.path("announcement.json"), {})
        return bool(kept.get("fence") == self.settings["fence"])

    def is_in_hand(self) -> bool:
        """Whether the run has ended, or somebody said that they look after it."""
        return bool(self.control.outcome(self.run)) or os.path.exists(self.path("acknowledged.json"))

    def told(self) -> list[dict[str, Any]]:
        """What was told since the run was opened last, delivered or not, oldest first."""
        mine = [*self.outbox.settled(self.run), *self.outbox.waiting(self.run)]
        prefixes = tuple(f"{self.run}.{self.settings['fence']}{end}" for end in ".-")
        return sorted((one for one in mine if one["id"].startswith(prefixes)), key=lambda one: one["created"])

    def _content(self, event: str, why: str, to: str, by: str) -> dict[str, Any]:
        plan = self.control.plan(self.run) or {}
        contact = self.settings["oncall"].get(to) or {}
        details = {
            "run": self.run,
            "environment": plan["environment"],
            "procedure": plan["procedure"],
            "services": planning.changed_services(plan) or [plan["procedure"]],
            "reason": plan["reason"],
            "operator": self.settings["operator"],
            "began": self.settings["began"],
            "eta": self.settings["eta"],
            "why": why,
            "by": by,
            "told": to,
            "boxes": self.boxes(),
        }
        values = {**details, "event": event, "severity": plan["severity"], "contact": contact, "now": now()}
        return {
            "text": _render(self.settings["text"], values),
            "summary": _render(self.settings["summary"], values),
            "severity": plan["severity"],
            "to": contact,
            "details": details,
        }

    def is_followed(self) -> bool:
        """Whether a courier looks after the run."""
        with open(self.path(COURIER_LOCK), "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def follow(self) -> None:
        """Have a process of its own deliver what is queued: the run waits for nobody."""
        kept = {name: os.environ[name] for name in _COURIER_VARIABLES if name in os.environ}
        with open(self.path("courier.log"), "ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", _COURIER, self.control.directory, self.run],
                env={**kept, "PYTHONPATH": str(_IMPORT_ROOT)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def undelivered(self) -> list[str]:
        """The channels that have not taken the last message, once each of them was tried or the time is up."""
        until = time.monotonic() + _LAST_LOOK_SECONDS
        while time.monotonic() < until and any(self._is_untried(one) for one in self.outbox.waiting(self.run)):
            time.sleep(0.05)
        return [f"{one['channel']} ({one['error'] or one['state']})" for one in self.outbox.waiting(self.run)]

    def _is_untried(self, message: dict[str, Any]) -> bool:
        return message["state"] == "sending" or (message["state"] == "queued" and not message["attempts"])


def _render(template: str, values: dict[str, Any]) -> str:
    """A template of the operator's, filled with values that are data whatever they contain."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["clock"] = lambda moment: f"{datetime.fromisoformat(moment):%H:%M:%S} UTC"
    return environment.from_string(template).render(values).strip()
