# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rolling back without the maintenance page: which hosts, in which batches, and when to stop."""
from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held


class Fleet:
    """Hosts behind the balancers that were read; `servers` has the name of each at a balancer."""

    def __init__(
        self, policy: dict[str, Any], servers: dict[str, str], balancers: dict[str, dict[str, Any]]
    ) -> None:
        self._policy = policy
        self._servers = servers
        self._balancers = balancers

    def may_fail(self, hosts: list[str]) -> int:
        """How many of the hosts may fail or be out of reach: none where one could not be kept from its users."""
        if self.undrainable(hosts):
            return 0
        return len(hosts) * self._policy["max_failed"] // 100

    def undrainable(self, hosts: list[str]) -> str:
        """Why one of the hosts cannot be taken out of rotation alone; empty where each can."""
        if not self._balancers:
            return "no balancer is in the inventory"
        for balancer, report in self._balancers.items():
            for host in hosts:
                if self._server(host) not in (report.get("servers") or {}):
                    return f"{balancer} has no server {self._server(host)} that can be drained"
        return ""

    def _server(self, host: str) -> str:
        return self._servers.get(host) or host

    def obstacle(self, part: dict[str, Any]) -> str:
        """Why the hosts of this part of a plan cannot be rolled back one after the other; empty where they can."""
        if part.get("schema", {}).get("rollback"):
            return "no release can serve while the schema goes back"
        in_rotation = [host for host in part["hosts"] if not self._is(host, "admin", "maint")]
        if len(in_rotation) < 2:
            return f"there is only {', '.join(in_rotation) or 'nobody'} to serve meanwhile"
        shown = [host for host, report in self._balancers.items() if report.get("enabled")]
        return f"it is shown on {', '.join(shown)} already" if shown else self.undrainable(part["hosts"])

    def part(self, hosts: list[str], left_out: list[str]) -> dict[str, Any]:
        """The pinned order: `batches` of hosts, how many `may_fail`, and who was in maintenance and stays so."""
        hosts = [*(idle := self.idle(hosts)), *(host for host in hosts if host not in idle)]
        first = validate.positive(self._policy["first"], "rolling.first")
        most = max(1, len(hosts) * (100 - self._policy["keep_serving"]) // 100)
        size = min(validate.positive(self._policy["batch"], "rolling.batch"), most)
        rest = hosts[first:]
        batches = [hosts[:first], *(rest[start : start + size] for start in range(0, len(rest), size))]
        return {
            "batches": batches,
            "may_fail": max(0, self.may_fail([*hosts, *left_out]) - len(left_out)),
            "stays_out": [host for host in hosts if self._is(host, "admin", "maint")],
        }

    def idle(self, hosts: list[str]) -> list[str]:
        """Those of the hosts that serve nobody now, drained or found ill: they go first, at no user's cost."""
        drained = self.drained(hosts)
        return [host for host in hosts if host in drained or self._is(host, "operational", "stopped")]

    def drained(self, hosts: list[str]) -> list[str]:
        """Those of the hosts that get no requests because a balancer was told so."""
        return [host for host in hosts if self._is(host, "admin", "drain")]

    def _is(self, host: str, kind: str, state: str) -> bool:
        """Whether a balancer says so of a host."""
        told = ((report.get("servers") or {}).get(self._server(host)) for report in self._balancers.values())
        return any(server is not None and server[kind] == state for server in told)


def plan_traffic(part: dict[str, Any], wanted: bool, fleet: Fleet) -> dict[str, Any]:
    """What becomes of traffic while this part is carried out: the page, or none and `rolling` instead."""
    if not wanted or not part["stop_traffic"]:
        return {}
    obstacle = fleet.obstacle(part)
    if obstacle:
        return {"page_because": obstacle}
    return {"stop_traffic": False, "rolling": fleet.part(part["hosts"], list(part.get("left_out", {})))}


def of_plan(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that are rolled back without the page, each with its pinned order."""
    return {name: part["rolling"] for name, part in plan["services"].items() if part.get("rolling")}


def sizes(plan: dict[str, Any]) -> list[int]:
    """How many hosts are rolled back at a time."""
    return [len(batch) for order in of_plan(plan).values() for batch in order["batches"]]


def sequence(order: dict[str, Any], first: list[str]) -> list[str]:
    """The hosts of an order one after the other; those that now serve nobody come `first`."""
    hosts = [host for batch in order["batches"] for host in batch]
    return [*(host for host in hosts if host in first), *(host for host in hosts if host not in first)]


def place_of(batch: list[str], hosts: list[str], order: dict[str, Any]) -> dict[str, Any]:
    """Which of the batches this is: its `number` of how many (`of`), and its `hosts`."""
    ends = list(accumulate(map(len, order["batches"])))
    return {"hosts": batch, "number": bisect_right(ends, hosts.index(batch[0])) + 1, "of": len(ends)}


def stop_after_failures(order: dict[str, Any], hosts: list[str], batch: list[str], complaints: dict[str, str]) -> None:
    """Held where more of the `hosts` before this batch failed than may, or all that went first did.

    `complaints` has a line for each that failed.
    """
    before = hosts[: min(map(hosts.index, batch))]
    failed = [host for host in before if host in complaints]
    if len(failed) > order["may_fail"] or (failed and failed == before):
        raise Held(
            f"{len(failed)} of {len(before)} hosts failed ({', '.join(failed)}), {order['may_fail']} may; "
            f"{len(hosts) - len(before)} hosts were not touched and keep serving what they have"
        )


def summary(plan: dict[str, Any]) -> list[str]:
    """Lines about hosts that are left out, and about a page that is shown although none was wanted."""
    lines = [
        f"left out: {host}, which gets no requests and keeps its release ({why})"
        for part in plan["services"].values()
        for host, why in part.get("left_out", {}).items()
    ]
    for name, part in plan["services"].items():
        if part.get("page_because"):
            lines.append(f"{name}: not without the page, because {part['page_because']}")
    return lines


def traffic_lines(order: dict[str, Any]) -> list[str]:
    """How traffic goes on while hosts are rolled back one batch after the other."""
    batches = order["batches"]
    stays = f"; {', '.join(order['stays_out'])} in maintenance before and after" if order["stays_out"] else ""
    may_fail = order["may_fail"]
    stops = f"when more than {may_fail} have failed" if may_fail else "at the first that fails"
    head = f"rolling, without the page, in {len(batches)} batches, stopping {stops}{stays}"
    lines = [f"  batch {number}: {', '.join(batch)}" for number, batch in enumerate(batches, 1)]
    return [head, f"{lines[0]}, to show whether the release holds", *lines[1:]]
