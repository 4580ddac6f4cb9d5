"""What a run has done so far, worked out from ansible-runner's events."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.ending import INTERRUPTED, QUEUED, Ending
from ansible_collections.marketsage.rollback.wrapper import advice

VERSION = 1
_RESULTS = {"runner_on_ok": "ok", "runner_on_failed": "failed", "runner_on_unreachable": "unreachable"}

Happening = dict[str, Any]


@dataclass
class Step:
    """One step of the procedure: seconds it may take, and what became of it; skipped is one that had nothing to do."""

    name: str
    budget: int
    status: str = "waiting"
    seconds: float = 0.0
    acted: bool = False
    began: float = field(default=0.0, repr=False)


class Progress:
    """The steps of one run and its ending; `take` turns each event into what is worth telling."""

    def __init__(self, budgets: dict[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self.steps = [Step(name, budget) for name, budget in budgets.items()]
        self.ending = Ending()
        self._schema_told = False
        self._clock = clock
        self._began = clock()
        self._current: Step | None = None

    def elapsed(self) -> float:
        """Seconds since the operator pressed Enter."""
        return self._clock() - self._began

    def take(self, event: dict[str, Any]) -> Iterator[Happening]:
        """Take in one event of ansible-runner and yield what happened, as versioned dictionaries."""
        data = event.get("event_data") or {}
        if event["event"] == "playbook_on_play_start":
            yield from self._enter(data.get("name") or data.get("play") or "")
        elif event["event"] == "playbook_on_task_start":
            yield self._happening("task_started", task=data.get("name") or data.get("task") or "")
        elif event["event"] in _RESULTS:
            yield from self._result(_RESULTS[event["event"]], data)
        elif event["event"] == "runner_retry":
            yield from self._watched(data.get("res") or {})
        elif event["event"] == "playbook_on_stats":
            yield from self._leave()
        elif event["event"] == "verbose":
            self.ending.heard(event["stdout"])

    def started(self, title: str, response_time: int | None) -> Happening:
        """The first thing to tell: what is carried out, in which steps, since when, in seconds since 1970."""
        steps = {step.name: step.budget for step in self.steps}
        now = {"time": time.time(), "driver": os.getpid()}
        return self._happening("started", title=title, response_time=response_time, steps=steps, **now)

    def ended(self, exit_code: int) -> Happening:
        """The last thing to tell: how it ended."""
        run = self.ending.run or {}
        if exit_code == INTERRUPTED:
            self.ending.stopped = "where no change was under way"
        if exit_code == QUEUED:
            self.ending.undelivered = ["how it ended"]
        said = {"status": self.ending.status, "lines": [advice.typed(line) for line in self.ending.said(exit_code)]}
        return self._happening("ended", exit_code=exit_code, run=run.get("id"), **said)

    def _happening(self, kind: str, **values: Any) -> Happening:
        return {"version": VERSION, "event": kind, "elapsed": round(self.elapsed(), 2), **values}

    def _enter(self, name: str) -> Iterator[Happening]:
        step = next((step for step in self.steps if step.name == name), None)
        if step is None or step is self._current:
            return
        yield from self._leave()
        self._current = step
        step.status, step.began = "running", self._clock()
        yield self._happening("step_started", step=name, budget=step.budget)

    def _leave(self) -> Iterator[Happening]:
        step, self._current = self._current, None
        if step is None:
            return
        step.seconds = self._clock() - step.began
        if step.status == "running":
            step.status = "done" if step.acted else "skipped"
        yield self._happening(
            "step_finished", step=step.name, status=step.status, seconds=round(step.seconds, 2), budget=step.budget
        )

    def _result(self, status: str, data: dict[str, Any]) -> Iterator[Happening]:
        values = data.get("res") or {}
        failed = status != "ok" and not data.get("ignore_errors")
        if failed:
            self.ending.failed(data["host"], values)
        else:
            self.ending.succeeded(values)
        if self._current:
            self._current.acted = True
            self._current.status = "failed" if failed else self._current.status
        if values.get("directory") and values.get("run"):
            opened = {key: values[key] for key in ("status", "owner", "approved_by", "directory")}
            yield self._happening("opened", run=values["run"]["id"], **opened)
        if "plan" in values and "summary" in values:
            shown = ("plan", "hash", "pinned", "summary", "estimates")
            yield self._happening("plan", **{key: values[key] for key in shown})
        if "sql" in values and "at_risk" in values and values.get("undone") and not self._schema_told:
            self._schema_told = True
            yield self._happening("schema", **{key: values[key] for key in ("undone", "at_risk", "sql", "archive")})
        if "batch" in values:
            yield self._happening("batch", **values["batch"])
        if "results" in values and "passes" in values:
            yield self._happening("checks", host=data["host"], passed=values["passed"], results=values["results"])
        yield from self._watched(values)
        yield self._happening("task", host=data["host"], task=data["task"], status=status)

    def _watched(self, values: dict[str, Any]) -> Iterator[Happening]:
        if "criteria" in values:
            told = {key: values[key] for key in ("verdict", "criteria", "watch")}
            yield self._happening("judged", **told)
        elif "watch" in values:
            yield self._happening("watched", **values["watch"])
