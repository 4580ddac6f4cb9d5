# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What makes a module's change safe on its host: the host lock, the run's fencing number and the journal."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal, canonical

RUN_ARGUMENT = {
    "type": "dict",
    "options": {
        "id": {"type": "str", "required": True},
        "fence": {"type": "int", "required": True},
        "state_dir": {"type": "path", "required": True},
    },
}
_LOCK_SECONDS = 60


class Change:
    """A change in progress; `outcome` is what was read back and goes into the journal."""

    def __init__(self) -> None:
        self.outcome: dict[str, Any] = {}


class Run:
    """The open run a module works for, as its `run` parameter names it."""

    def __init__(self, run_id: str, fence: int, state_dir: str) -> None:
        self.id = validate.run_id(run_id, "run.id")
        self.fence = validate.positive(fence, "run.fence")
        self.state_dir = validate.absolute_path(state_dir, "run.state_dir")

    @classmethod
    def of(cls, parameter: dict[str, Any] | None) -> Run:
        """From a module's `run` parameter; a change without an open run is refused."""
        if not parameter:
            raise Refused("run: a change needs an open run; see marketsage.rollback.rollback_run")
        return cls(parameter["id"], parameter["fence"], parameter["state_dir"])

    @contextmanager
    def change(self, step: str, intent: dict[str, Any]) -> Iterator[Change]:
        """Hold the host's lock, refuse a fenced-out run, and journal the intent before and the outcome after."""
        os.makedirs(os.path.join(self.state_dir, "journal"), mode=0o700, exist_ok=True)
        with locked(os.path.join(self.state_dir, "lock"), _LOCK_SECONDS):
            self._check_fence()
            journal = self._journal()
            journal.append(self.id, self.fence, step, "intent", intent)
            change = Change()
            try:
                yield change
            except RollbackError as error:
                journal.append(self.id, self.fence, step, "failed", {"error": str(error)})
                raise
            journal.append(self.id, self.fence, step, "outcome", change.outcome)

    def wait_for_orphan(self) -> None:
        """Let a module of this run that outlived its controller end what it does, so that it is read as done."""
        if os.path.isdir(self.state_dir):
            with locked(os.path.join(self.state_dir, "lock"), _LOCK_SECONDS):
                pass

    def has_begun(self, step: str) -> bool:
        """Whether this run has meant to take that step on this host already, before it was interrupted."""
        return any(entry["step"] == step for entry in self._journal().entries())

    def outcome_of(self, step: str) -> dict[str, Any] | None:
        """What was read back when this run took that step on this host; None where it did not, or not to its end."""
        entries = self._journal().entries()
        done = [entry["data"] for entry in entries if (entry["step"], entry["kind"]) == (step, "outcome")]
        return done[-1] if done else None

    def _journal(self) -> Journal:
        return Journal(os.path.join(self.state_dir, "journal", f"{self.id}.jsonl"))

    def _check_fence(self) -> None:
        path = os.path.join(self.state_dir, "fence.json")
        seen = read_json(path, {"fence": 0, "run": None})
        if self.fence < seen["fence"]:
            raise Refused(
                f"run {self.id} (fence {self.fence}) was overtaken here by run {seen['run']} (fence {seen['fence']})"
            )
        if self.fence > seen["fence"]:
            write_atomically(path, canonical({"fence": self.fence, "run": self.id}))
