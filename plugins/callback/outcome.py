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
requirements:
  - enabled in the configuration (C(callbacks_enabled))
author:
  - MarketSage (@marketsage)
"""

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import Ending


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "marketsage.rollback.outcome"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.ending = Ending()

    def v2_runner_on_ok(self, result: Any) -> None:
        self.ending.succeeded(result.result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self.ending.failed(result.host.get_name(), result.result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not result.task.ignore_unreachable:
            self.ending.failed(result.host.get_name(), result.result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for line in self.ending.lines():
            self._display.display(line)
        if self.ending.exit_code():
            raise SystemExit(self.ending.exit_code())
