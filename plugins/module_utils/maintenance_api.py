# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Balancers that are switched by HTTP: how they are asked, and the `POST|DELETE /maintenance-mode` contract."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import api, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.balancer import LEAST_SECONDS, Looks, Seen
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, RollbackError, Unknown


class AdminApi:
    """The administration address of a balancer; every request ends by the deadline."""

    def __init__(self, url: str, name: str, deadline: Deadline, headers: Mapping[str, str] | None = None) -> None:
        self._url = validate.url(url, name).rstrip("/")
        self._deadline = deadline
        self._headers = headers or {}

    def read(self, path: str, expect: tuple[int, ...] = (200,)) -> api.Response:
        try:
            return self._request("GET", path, None, expect)
        except RollbackError as error:
            raise Unknown(f"the state of maintenance cannot be read: {error}") from None

    def change(self, method: str, path: str, expect: tuple[int, ...] = (200,), json: Any = None) -> int | None:
        """The status of the answer; None where the answer was lost and only reading back can tell what happened."""
        try:
            return self._request(method, path, json, expect).status
        except api.ConnectionFailed as error:
            if error.maybe_applied:
                return None
            raise Held(str(error)) from None
        except api.UnexpectedStatus as error:
            raise Held(str(error)) from None

    def _request(self, method: str, path: str, json: Any, expect: tuple[int, ...]) -> api.Response:
        timeout = max(LEAST_SECONDS, self._deadline.left())
        return api.request(
            method, self._url + path, headers=self._headers, json=json, timeout=timeout, expect=expect
        )


class MaintenanceApi:
    """One request switches maintenance on, one off; the state is read by a third, or else from outside."""

    def __init__(self, admin: AdminApi, requests: dict[str, dict[str, Any]], looks: Looks) -> None:
        self._admin = admin
        self._requests = requests
        self._looks = looks
        if not requests["status"] and not looks:
            raise BadInput("status_request: give it, or at least one look, else nothing could be read back")
        for name, request in requests.items():
            if request and not request["path"].startswith("/"):
                raise BadInput(f"{name}_request.path: {request['path']!r} does not begin with a slash")

    def read(self) -> Seen:
        status = self._requests["status"]
        if not status:
            shown = {look["page"] for look in self._looks.take()}
            return Seen(serving=shown.pop() if len(shown) == 1 else None)
        value = self._admin.read(status["path"]).json().get(status["field"])
        if not isinstance(value, bool):
            raise Unknown(f"GET {status['path']}: {status['field']} is {value!r}, neither true nor false")
        return Seen(serving=value)

    def enable(self, text: str) -> None:
        self._switch("enable", {"message": text})

    def disable(self) -> None:
        self._switch("disable", None)

    def _switch(self, name: str, json: dict[str, Any] | None) -> None:
        wanted = self._requests[name]
        self._admin.change(wanted["method"], wanted["path"], tuple(wanted["expect"]), json)
