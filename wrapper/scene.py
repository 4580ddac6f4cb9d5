"""The picture of a run that its happenings draw, wherever they are followed from."""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ansible_collections.marketsage.rollback.wrapper.progress import Happening, Step

_DETAILS = 3


class Scene:
    """What is known of a run so far; `take` adds one happening."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.title = ""
        self.response_time: int | None = None
        self.steps: list[Step] = []
        self.plan: dict[str, Any] = {}
        self.run: str | None = None
        self.status: str | None = None
        self.lines: list[str] = []
        self.watch: dict[str, Any] = {}
        self.awaited = ""
        self.batch = ""
        self.details: deque[str] = deque(maxlen=_DETAILS)
        self.exit_code: int | None = None
        self._clock = clock
        self._began = clock()

    def elapsed(self) -> float:
        """Seconds since the operator pressed Enter."""
        return self._clock() - self._began

    def seconds_of(self, step: Step) -> float:
        return self.elapsed() - step.began if step.status == "running" else step.seconds

    @property
    def current(self) -> Step | None:
        return next((step for step in self.steps if step.status == "running"), None)

    def take(self, happening: Happening) -> None:
        draw = getattr(self, f"_{happening['event']}", None)
        if draw:
            draw(happening)

    def _started(self, happening: Happening) -> None:
        self._began = happening["time"]
        self.title, self.response_time = happening["title"], happening["response_time"]
        self.steps = [Step(name, budget) for name, budget in happening["steps"].items()]

    def _opened(self, happening: Happening) -> None:
        self.run = happening["run"]

    def _plan(self, happening: Happening) -> None:
        self.plan = happening

    def _watched(self, happening: Happening) -> None:
        self.watch = happening

    def _step_started(self, happening: Happening) -> None:
        step = self._step(happening)
        step.status, step.began = "running", happening["elapsed"]
        self.awaited = self.batch = ""

    def _step_finished(self, happening: Happening) -> None:
        step = self._step(happening)
        step.status, step.seconds = happening["status"], happening["seconds"]

    def _batch(self, happening: Happening) -> None:
        self.batch = batch_line(happening)

    def _task_started(self, happening: Happening) -> None:
        self.awaited = without_role(happening["task"])

    def _task(self, happening: Happening) -> None:
        self.details.append(f"{happening['host']}: {without_role(happening['task'])}: {happening['status']}")

    def _ended(self, happening: Happening) -> None:
        self.run, self.exit_code = happening["run"] or self.run, happening["exit_code"]
        self.status, self.lines = happening.get("status"), happening["lines"]

    def _step(self, happening: Happening) -> Step:
        return next(step for step in self.steps if step.name == happening["step"])


def batch_line(batch: Happening) -> str:
    """Which hosts are rolled back now, of how many batches."""
    return f"batch {batch['number']} of {batch['of']}: {', '.join(batch['hosts'])}"


def without_role(task: str) -> str:
    """A task's own words; Ansible puts its role before them."""
    return task.rpartition(" : ")[2]
