# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a run ended, worked out from what its tasks returned: end state, exit code, and what to do next."""
from __future__ import annotations

import re
from typing import Any

QUEUED = 10
HELD = 20
ABORTED = 21
UNKNOWN = 30
INTERRUPTED = 130
_ERROR = re.compile(r"(?:\x1b\[[\d;]*m)?\[?ERROR\]?: *([^\x1b\r\n]+)")
_PLANNED = ["PLANNED: nothing was changed"]
_WITHOUT_A_RUN = {
    "new": _PLANNED,
    "resumed": _PLANNED,
    "nothing": ["DONE: nothing to change"],
    "proposed": ["PROPOSED: nothing was changed; it waits for whoever carries it out"],
}
NAMES = {1: "FAILED", 2: "BAD INPUT", 3: "REFUSED", 5: "UNHEALTHY", HELD: "HELD", UNKNOWN: "UNKNOWN"}


class Ending:
    """Collects task results as they come; both the callback and the command read the end state from it."""

    def __init__(self) -> None:
        self.run: dict[str, Any] | None = None
        self.directory = ""
        self.status: str | None = None
        self.closed: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.error = ""
        self.stopped: str | None = None
        self.undelivered: list[str] = []
        self.failed_hosts: dict[str, str] = {}
        self.servers: dict[str, str] = {}

    def succeeded(self, values: dict[str, Any]) -> None:
        """Take in a task's result; only those of rollback_run and of servers at a balancer say something."""
        for one in [values, *values.get("results", [])]:
            server = one.get("server") if isinstance(one, dict) else None
            if isinstance(server, dict):
                self.servers[server["name"]] = server["admin"]
        if "status" in values and "run" in values:
            self.run, self.status = values["run"], values["status"]
            self.directory = values.get("directory", "")
        if values.get("outcome"):
            self.closed = values["outcome"]

    def failed(self, host: str, values: dict[str, Any]) -> None:
        """Take in a task's failure; the first of the collection's own errors is what the run failed of."""
        values = next((one for one in values.get("results", []) if isinstance(one, dict) and one.get("failed")), values)
        if host != "localhost":
            self.failed_hosts.setdefault(host, " ".join(str(values.get("msg") or "failed").split()))
        if self.failure is None or (self.failure["exit_code"] is None and values.get("exit_code")):
            self.failure = {
                "host": host,
                "msg": str(values.get("msg") or "failed"),
                "exit_code": values.get("exit_code"),
                "advice": values.get("advice") or "",
            }

    def heard(self, line: str) -> None:
        """Take in what Ansible said beside its tasks' results: the first error is why it could not even begin."""
        said = _ERROR.match(line)
        self.error = self.error or (said[1] if said else "")

    def exit_code(self) -> int | None:
        """The run's exit code; None where nothing of this collection decided, so that Ansible's own stands."""
        if self.closed:
            return int(self.closed["exit_code"]) or (QUEUED if self.undelivered else 0)
        if self.stopped:
            return INTERRUPTED
        if self.run:
            return UNKNOWN if self.failure and self.failure["exit_code"] == UNKNOWN else HELD
        return self.failure["exit_code"] if self.failure else None

    def why(self) -> str:
        """What kept the run from ending well, in one line; empty where nothing did."""
        if self.closed:
            return ""
        return self.stopped or (self.failure or {}).get("msg", "")

    def lines(self) -> list[str]:
        """The end state and the next step, for a human; nothing where nothing was decided."""
        code = self.exit_code()
        if self.closed:
            first, *others = _closing_lines(self.closed)
            return [first, *self._drained(), *others, *self._queued()]
        if self.stopped:
            unchanged = [] if self.run else ["Nothing was changed."]
            return [f"STOPPED: {self.stopped}", *unchanged, *self._drained(), *self._ways_on(), *self._queued()]
        if code is None:
            return _WITHOUT_A_RUN.get(self.status or "", [])
        failure = self.failure or {"host": "localhost", "msg": "ended before its last step", "advice": ""}
        lines = [f"{NAMES.get(code, 'FAILED')}: {failure['host']}: {failure['msg']}"]
        lines += self._also_failed(failure)
        lines += self._drained()
        if failure["advice"]:
            lines.append(f"NEXT: {failure['advice']}")
        return lines + self._ways_on() + self._queued()

    def said(self, exit_code: int) -> list[str]:
        """The same where nothing of this collection decided: what Ansible's own exit code and failure say."""
        if self.lines() or exit_code == 0:
            return self.lines() or ["DONE"]
        failure = f"{self.failure['host']}: {self.failure['msg']}" if self.failure else self.error
        return [f"FAILED with exit code {exit_code}{': ' if failure else ''}{failure}"]

    def _also_failed(self, failure: dict[str, Any]) -> list[str]:
        """The other hosts that failed; where nothing was begun each with what was not said yet, for it may be why."""
        others = {host: why for host, why in self.failed_hosts.items() if host != failure["host"]}
        causes = {} if self.run else {host: why for host, why in others.items() if why not in failure["msg"]}
        rest = [host for host in others if host not in causes]
        lines = [f"ALSO FAILED: {host}: {why}" for host, why in causes.items()]
        return lines + ([f"ALSO FAILED: {', '.join(rest)}"] if rest else [])

    def _ways_on(self) -> list[str]:
        """What can be done with a run that stays open."""
        if not self.run:
            return []
        run = self.run["id"]
        return [
            f"NEXT: go on with it, when what is in the way is mended: rollback resume {run}",
            f"      or choose another release or leave a host out: --to RELEASE, --without HOST; --instead-of {run}",
            f"      or go back to where it started: rollback abort {run}",
        ]

    def _queued(self) -> list[str]:
        """Who has not been told, and what to do about it."""
        if not self.undelivered:
            return []
        return [f"QUEUED: not told yet: {'; '.join(self.undelivered)}", "NEXT: rollback outbox list, or outbox send"]

    def _drained(self) -> list[str]:
        drained = [name for name, admin in self.servers.items() if admin == "drain"]
        return [f"DRAINED: {', '.join(drained)}: no requests until a run proves them"] if drained else []


def _closing_lines(outcome: dict[str, Any]) -> list[str]:
    """How a run that has ended did so."""
    if outcome["state"] == "superseded":
        return [f"SUPERSEDED: {outcome['run']}: {outcome['by']} took its place"]
    aborted = "ABORTED: {run}: it is back where it started and traffic is on"
    lines = [(aborted if outcome["state"] == "aborted" else "DONE: {run}: {proof}").format(**outcome)]
    approval = outcome["approval"]
    if approval["need"] == "preferred" and not approval["given_by"]:
        lines.append(f"NOTE: nobody of {' or '.join(approval['roles'])} approved it; that is on record, tell them")
    lines += [f"NOTE: {note}" for note in outcome.get("notes", [])]
    lines += [f"STILL TO DO: {duty}" for duty in outcome["undone"]]
    return lines + [f"BY HAND: {step}" for step in outcome.get("left_to_do", [])]
