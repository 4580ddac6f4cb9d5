# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One service of systemd: what its manager says of it, and which release its main process runs."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.command import execute, tail, with_variables
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import working_directory

# What systemctl show is asked for: it exits with 0 for a unit that does not exist, too.
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts")
_SHORTEST_WAIT = 5.0
_ON_THE_WAY = ("activating", "deactivating", "reloading")


@dataclass(frozen=True)
class State:
    """A service as it is: `release` is its main process's working directory, None where there is none or no reading."""

    active: str
    sub: str
    pid: int
    restarts: int
    release: str | None

    @property
    def in_transition(self) -> bool:
        return self.active in _ON_THE_WAY

    def runs(self, release: str) -> bool:
        return self.active == "active" and self.pid > 0 and self.release == release

    def shown(self) -> dict[str, Any]:
        return {"active": self.active, "sub": self.sub, "pid": self.pid, "restarts": self.restarts,
                "release": self.release}


class Service:
    """A unit of the system's manager, or of a user's."""

    def __init__(self, unit: str, scope: str, environment: dict[str, Any], deadline: Deadline) -> None:
        self.unit = unit
        self._systemctl = ["systemctl", *(["--user"] if scope == "user" else [])]
        self._environment = with_variables(environment)
        self._deadline = deadline

    def read(self) -> State:
        """What systemd says of it now; BadInput where it has no such unit."""
        code, output = self._run("show", f"--property={','.join(_PROPERTIES)}", self.unit)
        said = dict(line.partition("=")[::2] for line in output.splitlines())
        if code or not set(_PROPERTIES) <= set(said):
            raise Unknown(f"systemctl show {self.unit} failed: {tail(output)}. Is {self.unit} running?")
        if said["LoadState"] != "loaded":
            raise BadInput(f"unit: systemd has no service {self.unit} ({said['LoadState']})")
        pid = int(said["MainPID"])
        return State(said["ActiveState"], said["SubState"], pid, int(said["NRestarts"]), working_directory(pid))

    def settled(self, seconds: float) -> State:
        """What it is once systemd has ended what it is doing with it, or after `seconds`."""
        for _attempt in Deadline(min(seconds, self._deadline.left())).attempts(0.05):
            state = self.read()
            if not state.in_transition:
                break
        return state

    def restart(self) -> None:
        """Restart it, and wait until systemd says that it has started; Held where that failed.

        A service that failed too often is refused by systemd until the count is reset.
        """
        self._run("reset-failed", self.unit)
        code, output = self._run("restart", self.unit)
        if code:
            raise Held(f"systemctl restart {self.unit} failed: {tail(output)}", f"Read: journalctl --unit {self.unit}")

    def _run(self, *arguments: str) -> tuple[int, str]:
        # What has been waited for to the end is still read once more.
        patience = Deadline(max(self._deadline.left(), _SHORTEST_WAIT))
        return execute("unit", [*self._systemctl, *arguments], "/", self._environment, patience)
