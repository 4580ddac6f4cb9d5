# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Caddy's admin API: the maintenance page is a route with a name of its own, before all others.

PUT inserts before an index; POST would append behind routes that already answer everything.
"""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.balancer import Seen
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held
from ansible_collections.marketsage.rollback.plugins.module_utils.maintenance_api import AdminApi

ROUTE_ID = "maintenance-mode"
_BY_ID = f"/id/{ROUTE_ID}"


class MaintenanceRoute:
    """The page of one server of Caddy's configuration."""

    def __init__(self, admin: AdminApi, server: str, page: dict[str, Any], deadline: Deadline) -> None:
        self._admin = admin
        self._routes = f"/config/apps/http/servers/{server}/routes"
        self._server = server
        self._page = page
        self._deadline = deadline

    def read(self) -> Seen:
        """A page behind another route is served for some requests at most: None."""
        routes = self._read_routes()
        if not any(_is_ours(route) for route in routes):
            return Seen(serving=False)
        return Seen(serving=True if _is_ours(routes[0]) else None, text=_text(routes))

    def enable(self, text: str) -> None:
        routes = self._read_routes()
        route = self._route(text)
        if routes and _is_ours(routes[0]):
            self._admin.change("PATCH", _BY_ID, json=route)
            return
        if any(_is_ours(other) for other in routes):
            # Behind others it serves nobody, and newer versions refuse the same name twice.
            self.disable()
        self._admin.change("PUT", f"{self._routes}/0", json=route)

    def disable(self) -> None:
        """Delete until there is none: older versions let the same name be there more than once."""
        for _attempt in self._deadline.attempts(0.02, longest=0.5):
            if self._admin.change("DELETE", _BY_ID, expect=(200, 404)) == 404:
                return
        raise Held(f"Caddy still has a route {ROUTE_ID} after {self._deadline.seconds:g} s")

    def _read_routes(self) -> list[dict[str, Any]]:
        answer = self._admin.read(self._routes, expect=(200, 400, 404))
        if answer.status != 200:
            raise BadInput(f"server: Caddy has no HTTP server {self._server}")
        return answer.json() or []

    def _route(self, text: str) -> dict[str, Any]:
        headers = {
            self._page["header"]: [self._page["value"]],
            "Cache-Control": ["no-store"],
            "Retry-After": ["120"],
        }
        answer = {
            "handler": "static_response",
            "status_code": self._page["status"],
            "headers": headers,
            "body": text,
        }
        return {"@id": ROUTE_ID, "handle": [answer], "terminal": True}


def _is_ours(route: dict[str, Any]) -> bool:
    return route.get("@id") == ROUTE_ID


def _text(routes: list[dict[str, Any]]) -> str | None:
    handlers = next(route for route in routes if _is_ours(route)).get("handle") or [{}]
    return handlers[0].get("body")
