"""Counts task boundaries, and kills the run at a chosen one."""
from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from sitecustomize import reached

DOCUMENTATION = """
name: faults
type: aggregate
short_description: Count task boundaries and kill the run at a chosen one
description: For tests.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "faults"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        reached("task", f"before {task.get_name()}")

    def v2_runner_on_ok(self, result: Any) -> None:
        reached("task", f"after {result.task.get_name()} on {result.host.get_name()}")
