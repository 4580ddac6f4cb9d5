# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The control host's record: who holds the environment's run lock, and each run's plan and outcome."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import HELD
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal, canonical, now

_FLOCK_SECONDS = 10


def process_start(pid: int) -> str | None:
    """When a process of this host started, as the kernel counts it; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        return None


def new_run_id(procedure: str) -> str:
    """A run's id: when it began, what it does, and four random digits."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{procedure}-{os.urandom(2).hex()}"


class Control:
    """The directory that is the control host's record of one environment."""

    def __init__(self, directory: str) -> None:
        self.directory = validate.absolute_path(directory, "control_dir")

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    @property
    def marks_file(self) -> str:
        return self.path("marks.json")

    def plan(self, run_id: str) -> dict[str, Any] | None:
        """The pinned plan of a run; None where there is no such run."""
        plan: dict[str, Any] | None = read_json(self.path("runs", run_id, "plan.json"), None)
        return plan

    def outcome(self, run_id: str) -> dict[str, Any] | None:
        """How a run ended; None while it is open."""
        outcome: dict[str, Any] | None = read_json(self.path("runs", run_id, "outcome.json"), None)
        return outcome

    def holder(self) -> dict[str, Any] | None:
        """The record of the open run that holds the lock, if any."""
        held: dict[str, Any] | None = read_json(self.path("held.json"), None)
        return held if held and not self.outcome(held["run"]) else None

    def interrupted(self, owner: str, request: dict[str, Any]) -> str | None:
        """The open run that this operator asked for in these very words, if there is one."""
        held = self.holder()
        if not held or held["owner"] != owner:
            return None
        plan = self.plan(held["run"]) or {}
        return held["run"] if all(plan.get(key) == value for key, value in request.items()) else None

    def journal(self, run_id: str) -> Journal:
        return Journal(self.path("journal", f"{run_id}.jsonl"))

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the record's kernel lock while it is read and written."""
        os.makedirs(self.path("journal"), mode=0o700, exist_ok=True)
        with locked(self.path("lock"), _FLOCK_SECONDS):
            yield

    def acquire(self, run_id: str, plan: dict[str, Any], owner: str, controller: int) -> dict[str, Any]:
        """Take the run lock for a new or an interrupted run and return its record with a new fencing number."""
        with self.exclusively():
            self.refuse_other_holder(run_id, plan.get("instead_of"))
            self._end_superseded(run_id, plan.get("instead_of"))
            os.makedirs(self.path("runs", run_id), mode=0o700, exist_ok=True)
            if self.plan(run_id) is None:
                write_atomically(self.path("runs", run_id, "plan.json"), canonical(plan))
            fence = read_json(self.path("fence.json"), {"fence": 0})["fence"] + 1
            write_atomically(self.path("fence.json"), canonical({"fence": fence, "run": run_id}))
            record = self._record(run_id, plan, owner, controller, fence)
            write_atomically(self.path("held.json"), canonical(record))
            self.journal(run_id).append(run_id, fence, "open", "outcome", record)
        return record

    def _record(
        self, run_id: str, plan: dict[str, Any], owner: str, controller: int, fence: int
    ) -> dict[str, Any]:
        earlier = self.holder()
        return {
            "run": run_id,
            "fence": fence,
            "owner": owner,
            "host": socket.gethostname(),
            "severity": plan["severity"],
            "reason": plan["reason"],
            "since": earlier["since"] if earlier else now(),
            "controller": {"pid": controller, "started": process_start(controller)},
        }

    def _end_superseded(self, run_id: str, superseded: str | None) -> None:
        """Write down of the run that this one takes the place of how it ended."""
        held = self.holder()
        if superseded and held and held["run"] == superseded:
            outcome = {"state": "superseded", "exit_code": HELD, "run": superseded, "by": run_id, "closed": now()}
            self.journal(superseded).append(superseded, held["fence"], "close", "outcome", outcome)
            write_atomically(self.path("runs", superseded, "outcome.json"), canonical(outcome))

    def refuse_other_holder(self, run_id: str | None, superseded: str | None = None) -> None:
        """Refused while another run is open but the superseded one, or while a living process drives it."""
        held = self.holder()
        if held is None:
            return
        known = f"run {held['run']} of {held['owner']}@{held['host']} since {held['since']} ({held['reason']})"
        if self.is_driven(held):
            raise Refused(f"lock: {known} is being driven by process {held['controller']['pid']} right now")
        if held["run"] not in (run_id, superseded):
            raise Refused(
                f"lock: {known} is open and was interrupted",
                f"Finish it: rollback resume {held['run']}; or take its place: --instead-of {held['run']}",
            )

    def is_driven(self, held: dict[str, Any]) -> bool:
        """Whether the process that opened the run lives; False where that cannot be read."""
        controller = held["controller"]
        return (
            held["host"] == socket.gethostname()
            and controller["started"] is not None
            and process_start(controller["pid"]) == controller["started"]
        )

    def release(self, run_id: str, fence: int, outcome: dict[str, Any]) -> None:
        """Write down how the run ended and free the lock."""
        with self.exclusively():
            self.journal(run_id).append(run_id, fence, "close", "outcome", outcome)
            write_atomically(self.path("runs", run_id, "outcome.json"), canonical(outcome))
            os.unlink(self.path("held.json"))
