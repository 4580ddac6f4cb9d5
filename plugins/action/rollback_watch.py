# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watch how the system does after a run, and judge it; see the module's documentation."""
from __future__ import annotations

import time
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import assessment, criteria, validate, watching
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import (
    BadInput,
    Refused,
    RollbackError,
    Unhealthy,
    Unknown,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.files import write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action, forms
from ansible_collections.marketsage.rollback.plugins.plugin_utils.announcing import Announcement
from jinja2 import TemplateError

FILE = "watch.json"
_LONGEST = 86400


def begin(control: Control, run: str, arguments: dict[str, Any], url: str) -> dict[str, Any]:
    """The watch of a run that has ended, with what was measured before the bad release."""
    seconds = validate.positive(arguments["seconds"], "seconds")
    if seconds > _LONGEST:
        raise BadInput(f"seconds: {seconds} is longer than a day")
    plan, outcome = control.plan(run), control.outcome(run)
    if plan is None:
        raise BadInput(f"run_id: there is no run {run} in {control.directory}")
    if outcome is None:
        raise Refused(f"run_id: {run} is still open; there is nothing to watch before its end")
    opened = assessment.seconds(outcome.get("opened")) or assessment.seconds(outcome["closed"])
    times = {
        "now": time.time(),
        "closed": assessment.seconds(outcome["closed"]),
        "live_since": watching.live_since(plan, arguments["reports"], opened or time.time()),
    }
    return _told(watching.begin(run, times, arguments["settings"], url, seconds))


def look(watch: dict[str, Any], arguments: dict[str, Any], url: str) -> dict[str, Any]:
    """The watch with what is known now, and whether it is over."""
    now = time.time()
    seen = watching.look(watch, url, arguments["coverage"], now)
    return {**_told(seen), "over": watching.is_over(seen, url, now)}


def _told(watch: dict[str, Any]) -> dict[str, Any]:
    return {"changed": False, "watch": watch, "told": [watching.brief(watch)]}


class Judged(RollbackError):
    """The verdict is not a good one; tells everything that it was made from too."""

    def __init__(self, error: RollbackError, found: dict[str, Any]) -> None:
        super().__init__(str(error), error.advice)
        self.exit_code = error.exit_code
        self._found = found

    def result(self) -> dict[str, Any]:
        return {**super().result(), **self._found}


def judge(
    control: Control, watch: dict[str, Any], arguments: dict[str, Any], url: str, check_mode: bool
) -> dict[str, Any]:
    """Keep the verdict with the run; Judged, and told to those who must know, where something is worse."""
    run, health, users = watch["run"], arguments["health"], arguments["users"]
    now = time.time()
    verdict = watching.verdict(watch, health, users)
    record = {
        "version": 1,
        **watch,
        "ended": now,
        "verdict": verdict,
        "health": health,
        "users": users,
        "series": watching.series(watch, url, now),
    }
    if not check_mode:
        write_atomically(control.path("runs", run, FILE), canonical(record))
    answers = criteria.answered(control.plan(run) or {}, control.entries(run), record)
    told = [*watching.lines(watch), *criteria.lines(answers)]
    found = {"changed": True, "verdict": verdict, "criteria": answers, "watch": watch, "told": told}
    if verdict == watching.WORSE:
        why = "; ".join(_worse(watch, [*health, *users]))
        untold = "" if check_mode else page(control, run, why, watch["started"])
        raise Judged(Unhealthy(f"{run}: it is worse again: {why}{untold}", "See how bad it is: rollback assess"), found)
    if verdict == watching.UNKNOWN:
        why = "; ".join(_unclear(watch, health))
        asked = f"{run}: it cannot be told whether it is as well as before the bad release: {why}. Is it?"
        raise Judged(Unknown(asked, "Look yourself: rollback verify full_system, rollback assess"), found)
    return found


def _worse(watch: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    measured = [one for one in watch["measures"] if one["verdict"] == watching.WORSE]
    failed = [f"{one['name']}: {one['evidence']}" for one in results if one["required"] and one["status"] == "failed"]
    return [*(f"{one['name']}: {watching.figures(one)}" for one in measured), *failed]


def _unclear(watch: dict[str, Any], health: list[dict[str, Any]]) -> list[str]:
    measured: dict[str, list[str]] = {}
    for one in watch["measures"]:
        if one["verdict"] == watching.UNKNOWN:
            measured.setdefault(one["problem"], []).append(one["name"])
    unknown = [f"{one['name']}: {one['evidence']}" for one in health if one["required"] and one["status"] == "unknown"]
    made = [] if health else ["no check was made"]
    return [*(f"{', '.join(names)}: {problem}" for problem, names in measured.items()), *unknown, *made]


def page(control: Control, run: str, why: str, started: float) -> str:
    """Tell that it is worse on every channel that heard of the run; what could not be told, in words."""
    announcement = Announcement(control.directory, run)
    if not announcement.settings:
        return "; nobody was told, for nobody was told of the run"
    try:
        announcement.tell("regressed", str(int(started)), why=why)
        if not announcement.is_followed():
            announcement.follow()
        waiting = announcement.undelivered()
    except (RollbackError, OSError, TemplateError) as error:
        return f"; nobody was told: {error}"
    return f"; not told yet: {'; '.join(waiting)} (rollback outbox list)" if waiting else ""


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["begun", "looked", "judged"]},
        "control_dir": {"type": "path", "required": True},
        "run_id": {"type": "str", "required": True},
        "prometheus_url": {"type": "str", "default": ""},
        "seconds": {"type": "int"},
        "settings": {"type": "dict"},
        "reports": {"type": "dict", "default": {}},
        "coverage": {"type": "float"},
        "watch": {"type": "dict"},
        "health": {"type": "list", "elements": "dict", "default": []},
        "users": {"type": "list", "elements": "dict", "default": []},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [
        ("state", "begun", ["seconds", "settings"]),
        ("state", "looked", ["watch", "coverage"]),
        ("state", "judged", ["watch"]),
    ]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        control = Control(arguments["control_dir"])
        run, url = validate.run_id(arguments["run_id"]), arguments["prometheus_url"]
        if url:
            validate.url(url, "prometheus_url")
        if arguments["state"] == "begun":
            forms.check("rollback_watch", arguments["settings"])
            return begin(control, run, arguments, url)
        if arguments["state"] == "looked":
            return look(arguments["watch"], arguments, url)
        return judge(control, arguments["watch"], arguments, url, self._task.check_mode)
