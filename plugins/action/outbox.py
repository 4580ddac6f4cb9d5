# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show, deliver or drop what was not delivered; see the module's documentation."""
from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action, courier

_SHOWN = ("id", "run", "channel", "event", "state", "attempts", "error", "created")


def act(outbox: Outbox, arguments: dict[str, Any]) -> None:
    """Send or drop what the arguments name."""
    if arguments["state"] == "dropped":
        outbox.drop(arguments["id"])
    elif arguments["state"] == "sent" and arguments["id"]:
        courier.deliver(outbox, arguments["channels"], [outbox.find(arguments["id"])], courier.NAMED)
    elif arguments["state"] == "sent":
        courier.deliver(outbox, arguments["channels"], outbox.waiting(), courier.MENDED)


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["listed", "sent", "dropped"]},
        "control_dir": {"type": "path", "required": True},
        "id": {"type": "str"},
        "channels": {"type": "dict", "default": {}},
    }
    REQUIRED_IF: ClassVar[list[Any]] = [("state", "dropped", ["id"])]

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        outbox = Outbox(Control(arguments["control_dir"]))
        before = [message["id"] for message in outbox.waiting()]
        if not self._task.check_mode:
            act(outbox, arguments)
        waiting = [{key: message[key] for key in _SHOWN} for message in outbox.waiting()]
        left = {message["id"] for message in waiting}
        settled = [identifier for identifier in before if identifier not in left]
        return {"changed": bool(settled), "waiting": waiting, "settled": settled}
