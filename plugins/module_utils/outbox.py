# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages on their way: on disk before they are sent, kept with their run once that is settled.

A message waits in `outbox/` as queued, sending, refused (settings are to be mended) or unknown (it may have arrived);
it is settled in `runs/<run>/messages/` as sent, superseded (a later one tells more) or dropped (by an operator).
"""
from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control, process_start
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, now

WAITING = ("queued", "sending", "refused", "unknown")
_LOCK_SECONDS = 2
_SUFFIX = ".json"


class Outbox:
    """The outbox of one environment. A message is a dictionary:

    id, run, channel, event, created, content, state, attempts, error, next (seconds since 1970), and while it is
    being sent its sender (pid, started); once sent, its receipt.
    """

    def __init__(self, control: Control) -> None:
        self.control = control

    def put(self, run: str, event: str, occasion: str, channel: str, content: dict[str, Any]) -> None:
        """Queue a message in place of those of its run and channel that are not sent yet.

        The same event on the same occasion again is nothing new.
        """
        message = {
            "id": f"{run}.{occasion}.{event}.{channel}",
            "run": run,
            "channel": channel,
            "event": event,
            "created": now(),
            "content": content,
            "state": "queued",
            "attempts": 0,
            "error": "",
            "next": 0.0,
        }
        self._make_directories(run)
        with self._locked():
            if any(os.path.exists(path) for path in (self._waiting(message), self._settled(message))):
                return
            for earlier in self.waiting(run):
                if earlier["channel"] == channel and earlier["state"] in ("queued", "refused"):
                    self._settle(earlier, "superseded")
            self._write(message)

    def waiting(self, run: str | None = None) -> list[dict[str, Any]]:
        """What is not delivered yet, of one run or of all, oldest first."""
        kept = _messages(self.control.path("outbox"), run)
        # One that was settled a moment ago has not been moved to its run yet.
        return [message for message in kept if message["state"] in WAITING]

    def settled(self, run: str) -> list[dict[str, Any]]:
        """What became of a run's messages that need nothing more, oldest first."""
        return _messages(self.control.path("runs", run, "messages"), run)

    def receipt(self, run: str, channel: str) -> dict[str, Any] | None:
        """What the channel gave for the newest message that it took of this run."""
        receipts = [one["receipt"] for one in self.settled(run) if one["channel"] == channel and one.get("receipt")]
        return receipts[-1] if receipts else None

    def claim(self, identifier: str, states: tuple[str, ...], repeatable: bool) -> dict[str, Any] | None:
        """Take a message in one of `states` to send it; None where it is gone, not due, or in other hands.

        One whose sender was killed counts as queued where it may be repeated, and becomes unknown where not.
        """
        with self._locked():
            message = self._read(identifier)
            if message["state"] == "sending" and not _lives(message["sender"]):
                message["state"] = "queued" if repeatable else "unknown"
                message["error"] = "whoever sent it was killed meanwhile"
                self._write(message)
            if message.get("state") not in states:
                return None
            message.update(state="sending", attempts=message["attempts"] + 1, sender=_this_process())
            self._write(message)
        return message

    def leave(self, message: dict[str, Any], state: str, error: str, wait: float = 0.0) -> None:
        """Keep a claimed message for later: queued for `wait` seconds, refused, or unknown."""
        with self._locked():
            message.pop("sender", None)
            message.update(state=state, error=error, next=time.time() + wait)
            self._write(message)

    def settle(self, message: dict[str, Any], state: str, receipt: dict[str, Any] | None = None) -> None:
        """Move a message to its run: it was sent, or is not to be sent."""
        with self._locked():
            self._settle(message, state, receipt)

    def drop(self, identifier: str) -> dict[str, Any]:
        """Give a waiting message up; BadInput where there is none of that id."""
        with self._locked():
            message = self.find(identifier)
            self._settle(message, "dropped")
        return message

    def find(self, identifier: str) -> dict[str, Any]:
        """The waiting message of that id; BadInput where there is none."""
        found = [message for message in self.waiting() if message["id"] == identifier]
        if not found:
            raise BadInput(f"id: no message {identifier!r} is waiting; see: rollback outbox list")
        return found[0]

    def _settle(self, message: dict[str, Any], state: str, receipt: dict[str, Any] | None = None) -> None:
        message.pop("sender", None)
        message.update(state=state, settled=now())
        if receipt is not None:
            message["receipt"] = receipt
        self._write(message)
        with suppress(FileNotFoundError):
            os.rename(self._waiting(message), self._settled(message))

    def _read(self, identifier: str) -> dict[str, Any]:
        message: dict[str, Any] = read_json(self.control.path("outbox", f"{identifier}{_SUFFIX}"), {"state": "gone"})
        return message

    def _write(self, message: dict[str, Any]) -> None:
        write_atomically(self._waiting(message), canonical(message))

    def _waiting(self, message: dict[str, Any]) -> str:
        return self.control.path("outbox", f"{message['id']}{_SUFFIX}")

    def _settled(self, message: dict[str, Any]) -> str:
        return self.control.path("runs", message["run"], "messages", f"{message['id']}{_SUFFIX}")

    def _make_directories(self, run: str) -> None:
        """Each by itself: a record that was removed meanwhile does not come back."""
        for path in (self.control.path("outbox"), self.control.path("runs", run, "messages")):
            with suppress(FileExistsError):
                os.mkdir(path, mode=0o700)

    def _locked(self) -> Any:
        return locked(self.control.path("outbox", "lock"), _LOCK_SECONDS)


def _messages(directory: str, run: str | None) -> list[dict[str, Any]]:
    try:
        names = [name for name in os.listdir(directory) if name.endswith(_SUFFIX)]
    except FileNotFoundError:
        return []
    mine = [name for name in names if run is None or name.startswith(f"{run}.")]
    found = [read_json(os.path.join(directory, name), None) for name in mine]
    return sorted((message for message in found if message), key=lambda message: message["created"])


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": process_start(os.getpid())}


def _lives(sender: dict[str, Any]) -> bool:
    return sender["started"] is not None and process_start(sender["pid"]) == sender["started"]
