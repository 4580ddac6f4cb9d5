# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a run ended, worked out from what its tasks returned: end state, exit code, and what to do next."""
from __future__ import annotations

from typing import Any

HELD = 20
UNKNOWN = 30
NAMES = {0: "DONE", 1: "FAILED", 2: "BAD INPUT", 3: "REFUSED", 5: "UNHEALTHY", HELD: "HELD", UNKNOWN: "UNKNOWN"}


class Ending:
    """Collects task results as they come; both the callback and the command read the end state from it."""

    def __init__(self) -> None:
        self.run: dict[str, Any] | None = None
        self.status: str | None = None
        self.closed: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.failed_hosts: list[str] = []
        self.servers: dict[str, str] = {}

    def succeeded(self, values: dict[str, Any]) -> None:
        """Take in a task's result; only those of rollback_run and of servers at a balancer say something."""
        for one in [values, *values.get("results", [])]:
            server = one.get("server")
            if isinstance(server, dict):
                self.servers[server["name"]] = server["admin"]
        if "status" in values and "run" in values:
            self.run, self.status = values["run"], values["status"]
        if values.get("outcome"):
            self.closed = values["outcome"]

    def failed(self, host: str, values: dict[str, Any]) -> None:
        """Take in a task's failure; the first of the collection's own errors is what the run failed of."""
        if host not in ("localhost", *self.failed_hosts):
            self.failed_hosts.append(host)
        if self.failure is None or (self.failure["exit_code"] is None and values.get("exit_code")):
            self.failure = {
                "host": host,
                "msg": str(values.get("msg") or "failed"),
                "exit_code": values.get("exit_code"),
                "advice": values.get("advice") or "",
            }

    def exit_code(self) -> int | None:
        """The run's exit code; None where nothing of this collection decided, so that Ansible's own stands."""
        if self.closed:
            return int(self.closed["exit_code"])
        if self.run:
            return UNKNOWN if self.failure and self.failure["exit_code"] == UNKNOWN else HELD
        return self.failure["exit_code"] if self.failure else None

    def lines(self) -> list[str]:
        """The end state and the next step, for a human; nothing where nothing was decided."""
        code = self.exit_code()
        if self.closed:
            done = f"DONE: {self.closed['run']}: the gate passed and traffic is on"
            return [done, *self._drained(), *(f"BY HAND: {step}" for step in self.closed.get("left_to_do", []))]
        if code is None:
            return ["DONE: nothing to change"] if self.status == "nothing" else []
        failure = self.failure or {"host": "localhost", "msg": "ended before its last step", "advice": ""}
        lines = [f"{NAMES.get(code, 'FAILED')}: {failure['host']}: {failure['msg']}"]
        others = [host for host in self.failed_hosts if host != failure["host"]]
        if others:
            lines.append(f"ALSO FAILED: {', '.join(others)}")
        lines += self._drained()
        if failure["advice"]:
            lines.append(f"NEXT: {failure['advice']}")
        if self.run:
            lines.append(f"NEXT: when that is mended: rollback resume {self.run['id']}")
            lines.append(f"      or choose another release: --to RELEASE --instead-of {self.run['id']}")
        return lines

    def _drained(self) -> list[str]:
        drained = [name for name, admin in self.servers.items() if admin == "drain"]
        return [f"DRAINED: {', '.join(drained)}: no requests until a run proves them"] if drained else []
