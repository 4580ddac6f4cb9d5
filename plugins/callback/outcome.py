# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = """
name: outcome
type: aggregate
short_description: Say how a rollback ended and exit with its code
version_added: 0.1.0
description:
  - Prints one closing block that names the end state of the run, why, and what to do next.
  - Makes C(ansible-playbook) exit with the run's code (see the table in the README) instead of Ansible's own.
  - Plays in which nothing of this collection decides keep Ansible's exit code.
  - Ends a run between two of its steps or tasks, where no change is under way, when O(stop_file) has appeared or
    somebody has taken the run over. It exits with 130 then, and the run can be resumed.
  - Writes how long each step took to C(steps.json) in the run's record, from which later plans estimate.
  - Shows what M(marketsage.rollback.rollback_watch) knows each time it has looked.
  - Tells of a run that M(marketsage.rollback.announce) announced, each time a box of its template is ticked and how it
    ends. What cannot be told waits in the outbox and never fails the run.
options:
  stop_file:
    description: A file whose appearance asks the run to stop.
    type: path
    env:
      - name: ROLLBACK_STOP_FILE
requirements:
  - enabled in the configuration (C(callbacks_enabled))
author:
  - MarketSage (@marketsage)
"""

import os
from collections.abc import Callable
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import UNKNOWN, Ending
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.steps import Steps
from ansible_collections.marketsage.rollback.plugins.plugin_utils.announcing import Announcement
from jinja2 import TemplateError


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "marketsage.rollback.outcome"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.ending = Ending()
        self.in_step = False
        self.steps = Steps([])
        self.announcement: Announcement | None = None

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        super().set_options(*args, **kwargs)
        self.stop_file = self.get_option("stop_file")

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.steps = Steps([play.get_name() for play in playbook.get_plays()])

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.in_step = play.strategy not in ("linear", "ansible.builtin.linear")
        self._stop_if_asked(f"before the step {play.get_name()!r}")
        self.steps.enter(play.get_name())
        self._tell(lambda announcement: announcement.progress(self.steps.status))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        # Where hosts go on freely others are in the middle of their tasks just now.
        if not self.in_step:
            self._stop_if_asked(f"before {task.get_name()!r}")

    def v2_runner_on_ok(self, result: Any) -> None:
        self.steps.result(ok=True)
        self.ending.succeeded(result.result)
        self._show_watch(result)
        if announced := result.result.get("announced"):
            self.announcement = Announcement(announced["control_dir"], announced["run"])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self._failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not result.task.ignore_unreachable:
            self._failed(result)

    def v2_runner_retry(self, result: Any) -> None:
        self._show_watch(result)

    def _show_watch(self, result: Any) -> None:
        """What a watch knows by now."""
        for line in result.result["told"] if "watch" in result.result else []:
            self._display.display(line)

    def _failed(self, result: Any) -> None:
        self._show_watch(result)
        self.steps.result(ok=False)
        self.ending.failed(result.host.get_name(), result.result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.steps.leave()
        if self.ending.directory:
            self.steps.keep(self.ending.directory)
        self._end()

    def _stop_if_asked(self, where: str) -> None:
        """End here, where no change is under way, if the operator asked for that or somebody has taken the run over."""
        if self.ending.closed:
            return
        if self.stop_file and os.path.exists(self.stop_file):
            self._stop(f"as you asked, {where}")
        if self.ending.run and self._is_overtaken():
            self._stop(f"somebody has taken the run over; {where}")

    def _is_overtaken(self) -> bool:
        run = self.ending.run or {}
        return Control(os.path.dirname(os.path.dirname(self.ending.directory))).is_overtaken(run["id"], run["fence"])

    def _stop(self, why: str) -> None:
        self.ending.stopped = why
        self._end()

    def _end(self) -> None:
        """Tell and say how it ended, and exit with its code unless that is 0 or Ansible's own."""
        self._tell(self._tell_the_end)
        for line in self.ending.lines():
            self._display.display(line)
        if self.ending.exit_code():
            raise SystemExit(self.ending.exit_code())

    def _tell_the_end(self, announcement: Announcement) -> None:
        if not announcement.is_current():
            return
        announcement.keep_ticked(self.steps.status)
        announcement.tell(self._event(), why=self.ending.why())
        if not announcement.is_followed():
            announcement.follow()
        self.ending.undelivered = announcement.undelivered()

    def _event(self) -> str:
        """What the end is called where it is told."""
        if self.ending.closed:
            return str(self.ending.closed["state"])
        if self.ending.stopped:
            return "interrupted"
        return "unknown" if self.ending.exit_code() == UNKNOWN else "held"

    def _tell(self, tell: Callable[[Announcement], None]) -> None:
        """Tell something of an announced run; that it cannot be told fails nothing."""
        if self.announcement is None:
            return
        try:
            tell(self.announcement)
        except (RollbackError, OSError, TemplateError) as error:
            self._display.warning(f"this could not be told: {error}")
