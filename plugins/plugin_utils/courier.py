# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process that delivers a run's messages while the run goes on, and looks after the run when nobody else does."""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import channels
from ansible_collections.marketsage.rollback.plugins.module_utils.control import process_start
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from ansible_collections.marketsage.rollback.plugins.plugin_utils.announcing import COURIER_LOCK, Announcement

ENDED_WELL = ("done", "aborted")
ENDED_BADLY = ("held", "unknown", "interrupted")
# Who is told after whom when nobody acknowledges; the primary was told at once.
_ESCALATION = ("secondary", "escalation")
# Which waiting messages are sent: by the courier, by an operator who asks for it, and one that an operator names.
DUE = ("queued",)
MENDED = ("queued", "refused")
NAMED = ("queued", "refused", "unknown")
_LOOK_SECONDS = 0.1
_WATCH_SECONDS = 0.5
_TAKE_OVER_SECONDS = channels.ATTEMPT_SECONDS + 5
_LONGEST_WAIT = 60.0

Channels = Mapping[str, Mapping[str, Any]]


def deliver(outbox: Outbox, known: Channels, messages: list[dict[str, Any]], states: tuple[str, ...]) -> None:
    """Send messages once each: those of one channel in their order, the channels at the same time."""
    names = list(dict.fromkeys(message["channel"] for message in messages))

    def take_turns(name: str) -> None:
        for message in messages:
            if message["channel"] == name:
                deliver_one(outbox, known, message, states)

    with ThreadPoolExecutor(max(len(names), 1)) as pool:
        list(pool.map(take_turns, names))


def deliver_one(outbox: Outbox, known: Channels, message: dict[str, Any], states: tuple[str, ...]) -> None:
    """Send one message and write down what became of it."""
    name = message["channel"]
    settings = known.get(name, {})
    earlier = None if message["event"] in channels.NEWS else outbox.receipt(message["run"], name)
    claimed = outbox.claim(message["id"], states, channels.may_repeat(settings, earlier))
    if claimed is None:
        return
    try:
        receipt = channels.send(name, settings, claimed, earlier)
    except channels.NotYet as error:
        outbox.leave(claimed, "queued", str(error), max(error.wait, min(2.0 ** claimed["attempts"], _LONGEST_WAIT)))
    except channels.Ambiguous as error:
        outbox.leave(claimed, "unknown", f"{error}; did it arrive?")
    except RollbackError as error:
        outbox.leave(claimed, "refused", str(error))
    else:
        outbox.settle(claimed, "sent", receipt)


class Courier:
    """Delivers a run's messages until it has ended and everything is delivered, or there is no hope left."""

    def __init__(self, control_dir: str, run: str) -> None:
        self.announcement = Announcement(control_dir, run)
        self.settings = self.announcement.settings
        self.outbox = self.announcement.outbox
        self._stopping = threading.Event()

    def work(self) -> None:
        names = self.settings["channels"]
        threads = [threading.Thread(target=self._deliver, args=(name,), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        self._watch()
        # Of what is on its way nobody would know whether it arrived.
        self._stopping.set()
        for thread in threads:
            thread.join(channels.ATTEMPT_SECONDS)

    def _watch(self) -> None:
        while self.announcement.is_current() and not self._is_over():
            time.sleep(_WATCH_SECONDS)
            with suppress(OSError, RollbackError):
                self._look()

    def _deliver(self, name: str) -> None:
        """Send what is due on one channel until the courier stops: one that hangs holds no other up."""
        while not self._stopping.wait(_LOOK_SECONDS):
            with suppress(OSError, RollbackError):
                for message in self._due(name):
                    if not self._stopping.is_set():
                        deliver_one(self.outbox, self.settings["channels"], message, DUE)

    def _due(self, name: str) -> list[dict[str, Any]]:
        waiting = self.outbox.waiting(self.announcement.run)
        return [one for one in waiting if one["channel"] == name and one["next"] <= time.time()]

    def _is_over(self) -> bool:
        ending = self._ending()
        if ending is None:
            return False
        waiting = self.outbox.waiting(self.announcement.run)
        on_its_way = any(one["state"] in ("queued", "sending") for one in waiting)
        too_long = time.time() - _seconds(self.announcement.told()[-1]["created"]) > self.settings["retry_for"]
        return (not on_its_way or too_long) and not self._to_escalate(ending)

    def _ending(self) -> dict[str, Any] | None:
        """The message that told how the run ended."""
        told = self.announcement.told()
        return next((one for one in told if one["event"] in ENDED_WELL + ENDED_BADLY), None)

    def _look(self) -> None:
        """Tell what the run itself can tell no more: that it was interrupted, and that nobody has acknowledged."""
        ending = self._ending()
        if ending is None:
            self._tell_if_interrupted()
            return
        for number, level in self._to_escalate(ending):
            waited = time.time() - _seconds(ending["created"])
            if waited >= number * self.settings["acknowledge_within"]:
                self.announcement.tell("escalated", str(number), why=ending["content"]["details"]["why"], to=level)

    def _tell_if_interrupted(self) -> None:
        driver = self.settings["driver"]
        if process_start(driver["pid"]) == driver["started"]:
            return
        outcome = self.announcement.control.outcome(self.announcement.run)
        if outcome is None:
            self.announcement.tell("interrupted", why="the process that drove it is gone")
        elif outcome["state"] in ENDED_WELL:
            self.announcement.tell(outcome["state"])

    def _to_escalate(self, ending: dict[str, Any]) -> list[tuple[int, str]]:
        """Those on call who are still to be told, each with its turn; nobody once somebody has the run in hand."""
        if ending["event"] in ENDED_WELL or self.announcement.is_in_hand():
            return []
        told = {one["content"]["details"]["told"] for one in self.announcement.told()}
        turns = enumerate(_ESCALATION, 1)
        return [(number, level) for number, level in turns if level in self.settings["oncall"] and level not in told]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main() -> None:
    control_dir, run = sys.argv[1:]
    courier = Courier(control_dir, run)
    with suppress(RollbackError, OSError), locked(courier.announcement.path(COURIER_LOCK), _TAKE_OVER_SECONDS):
        courier.work()


if __name__ == "__main__":
    main()
