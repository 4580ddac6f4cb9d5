# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The control host's record: who holds the environment's run lock, and each run's plan and outcome."""
from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.approval import Approval
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import HELD
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal, canonical, digest, now
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run

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

    @property
    def freeze_file(self) -> str:
        return self.path("freeze.json")

    def runs(self) -> list[str]:
        """Every run on record, newest first."""
        directory = self.path("runs")
        names = os.listdir(directory) if os.path.isdir(directory) else []
        return sorted((name for name in names if self.plan(name)), reverse=True)

    def operation(self, name: str) -> Run:
        """What a change of the record itself is journalled under: it needs no lock and overtakes no run."""
        return Run(new_run_id(name), max(1, self.fence()), self.directory)

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

    def entries(self, run_id: str) -> list[dict[str, Any]]:
        """Every entry of a run's journals, those collected from hosts too, oldest first; `at` is the host's name."""
        directory = self.path("runs", run_id, "journals")
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        collected = {name[: -len(".jsonl")]: Journal(os.path.join(directory, name)) for name in names}
        journals = {"control": self.journal(run_id), **collected}
        found = [{**entry, "at": host} for host, journal in journals.items() for entry in journal.entries()]
        return sorted(found, key=lambda entry: str(entry["time"]))

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the record's kernel lock while it is read and written."""
        os.makedirs(self.path("journal"), mode=0o700, exist_ok=True)
        with locked(self.path("lock"), _FLOCK_SECONDS):
            yield

    def acquire(
        self,
        run_id: str,
        plan: dict[str, Any],
        owner: str,
        controller: int,
        *,
        approval: Approval | None = None,
        takeover: str | None = None,
    ) -> dict[str, Any]:
        """Take the run lock for a new or an interrupted run and return its record with a new fencing number.

        `approval` is used up by it; `takeover` is the reason for which the run of somebody else is gone on with.
        """
        with self.exclusively():
            self.refuse_other_holder(run_id, owner, plan.get("instead_of"), takeover)
            if approval:
                self._use(approval, run_id)
            self._end_superseded(run_id, plan.get("instead_of"))
            os.makedirs(self.path("runs", run_id), mode=0o700, exist_ok=True)
            if self.plan(run_id) is None:
                write_atomically(self.path("runs", run_id, "plan.json"), canonical(plan))
            fence = self.fence() + 1
            write_atomically(self.path("fence.json"), canonical({"fence": fence, "run": run_id}))
            started = {"pid": controller, "started": process_start(controller)}
            record = {"run": run_id, "fence": fence, "owner": owner, "controller": started}
            record = {**record, **self._about(run_id, plan, takeover)}
            write_atomically(self.path("held.json"), canonical(record))
            self.journal(run_id).append(run_id, fence, "open", "outcome", record)
        return record

    def fence(self) -> int:
        """The newest fencing number; 0 before the first run."""
        fence: int = read_json(self.path("fence.json"), {"fence": 0})["fence"]
        return fence

    def _about(self, run_id: str, plan: dict[str, Any], takeover: str | None) -> dict[str, Any]:
        """What others who meet the lock want to know of the run."""
        earlier = self.holder() or {}
        return {
            "taken_over": {"from": earlier["owner"], "reason": takeover, "time": now()} if takeover else None,
            "approved_by": self.approved_by(run_id),
            "plan": digest(self.plan(run_id)),
            "host": socket.gethostname(),
            "severity": plan["severity"],
            "reason": plan["reason"],
            "since": earlier["since"] if earlier.get("run") == run_id else now(),
        }

    def _use(self, approval: Approval, run_id: str) -> None:
        """Keep an approval with the run that it is for; refused where another run has used it."""
        os.makedirs(self.path("approvals", "used"), mode=0o700, exist_ok=True)
        used = self.path("approvals", "used", f"{approval.id}.json")
        earlier = read_json(used, None)
        if earlier and earlier["run"] != run_id and self.plan(earlier["run"]):
            raise Refused(f"approval: it was used for run {earlier['run']}", "Let the plan be approved again.")
        write_atomically(used, canonical({"run": run_id}))
        os.makedirs(self.path("runs", run_id), mode=0o700, exist_ok=True)
        write_atomically(self.path("runs", run_id, "approval.json.sig"), approval.signature)
        write_atomically(self.path("runs", run_id, "approval.json"), approval.document)

    def approved_by(self, run_id: str) -> str | None:
        """Who approved a run; None where nobody did."""
        approval = read_json(self.path("runs", run_id, "approval.json"), None)
        return approval and str(approval["approver"])

    def given_approval(self, plan_hash: str) -> str | None:
        """Where the approval of a plan lies that was given on this host; None where there is none."""
        path = self.path("approvals", f"{plan_hash}.json")
        return path if os.path.exists(path) else None

    def propose(self, plan_hash: str, plan: dict[str, Any], valid_for: int) -> bool:
        """Keep a plan where its approvers find it; whether it is news, not proposed in the last `valid_for` seconds."""
        os.makedirs(self.path("proposals"), mode=0o700, exist_ok=True)
        path = self.path("proposals", f"{plan_hash}.json")
        if os.path.exists(path) and time.time() - os.path.getmtime(path) < valid_for:
            return False
        write_atomically(path, canonical(plan))
        return True

    def _end_superseded(self, run_id: str, superseded: str | None) -> None:
        """Write down of the run that this one takes the place of how it ended."""
        held = self.holder()
        if superseded and held and held["run"] == superseded:
            outcome = {"state": "superseded", "exit_code": HELD, "run": superseded, "by": run_id, "closed": now()}
            self.journal(superseded).append(superseded, held["fence"], "close", "outcome", outcome)
            write_atomically(self.path("runs", superseded, "outcome.json"), canonical(outcome))

    def refuse_other_holder(
        self, run_id: str | None, owner: str, superseded: str | None = None, takeover: str | None = None
    ) -> None:
        """Refused while another run is open but the superseded one, or while a living process drives it.

        The run of somebody else is gone on with for a stated reason alone, then even from under a living process.
        """
        held = self.holder()
        if held is None:
            return
        known = f"run {held['run']} of {held['owner']}@{held['host']} since {held['since']} ({held['reason']})"
        if takeover and held["run"] == run_id:
            return
        if self.is_driven(held):
            raise Refused(
                f"lock: {known} is being driven by process {held['controller']['pid']} right now",
                f"Wait for its end; or take it over: rollback takeover {held['run']} -r WHY",
            )
        if held["run"] not in (run_id, superseded):
            raise Refused(
                f"lock: {known} is open and was interrupted",
                f"Finish it: rollback resume {held['run']}; or take its place: --instead-of {held['run']}",
            )
        if held["run"] == run_id and held["owner"] != owner:
            raise Refused(f"lock: {known} is not yours", f"Take it over: rollback takeover {run_id} -r WHY")

    def is_overtaken(self, run_id: str, fence: int) -> bool:
        """Whether somebody has gone on with this run, or begun another, since it got its fencing number."""
        held = self.holder()
        return held is not None and (held["run"], held["fence"]) != (run_id, fence)

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
