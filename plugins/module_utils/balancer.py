# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A maintenance page, whichever balancer serves it: its state, whose it is, and how it looks from outside."""
from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Protocol

from ansible_collections.marketsage.rollback.plugins.module_utils import api, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import (
    BadInput,
    Held,
    Refused,
    RollbackError,
    Unknown,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, now
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run

Warn = Callable[[str], None]

WHOSE = ("owner", "reason", "run", "since")
_ANY_STATUS = tuple(range(100, 600))
# What a single question is given even at the end of the time: without it the last read-back could not succeed.
LEAST_SECONDS = 1.0
_LOOK_SECONDS = 3
# It is printed into a page and spoken to HAProxy's command line: neither may find anything to interpret in it.
_TEXT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .,:!?()'/@+-]{0,198}[A-Za-z0-9.!?)])?", re.ASCII)


def plain_text(value: Any, name: str = "text") -> str:
    """What users read on the page: one line of 1 to 200 plain characters, no markup."""
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BadInput(f"{name}: up to 200 ASCII letters, digits, spaces and . , : ! ? ( ) ' / @ + - only, no markup")
    return value


@dataclass(frozen=True)
class Seen:
    """What a provider reads back.

    `serving`: whether users get the page now, None where that differs from place to place.
    `lasting`: whether they would after a restart of the balancer, None where the provider cannot tell.
    """

    serving: bool | None
    lasting: bool | None = None
    text: str | None = None


class Provider(Protocol):
    """A balancer that can put a page in front of everything."""

    def read(self) -> Seen: ...

    def enable(self, text: str) -> None: ...

    def disable(self) -> None: ...


class Looks:
    """Requests as users make them, and what tells the page from any other answer."""

    def __init__(self, requests: list[dict[str, Any]], page: dict[str, Any]) -> None:
        self._requests = [{**request, "url": validate.url(request["url"], "look.url")} for request in requests]
        self._page = page

    def __bool__(self) -> bool:
        return bool(self._requests)

    def take(self) -> list[dict[str, Any]]:
        """All looks at once; `page` is None where nobody answered."""
        if not self._requests:
            return []
        with ThreadPoolExecutor(len(self._requests)) as pool:
            return list(pool.map(self._look, self._requests))

    def wait(self, shown: bool, deadline: Deadline) -> list[dict[str, Any]]:
        """The looks once all show the page, or none does; Held when that is not so before the deadline."""
        for _attempt in deadline.attempts(0.1, longest=1):
            looks = self.take()
            if all(look["page"] is shown for look in looks):
                return looks
        raise Held(
            f"maintenance is {_word(shown)} at the balancer, but from outside {_other(looks, shown)}",
            "Is it the right address, and does this balancer alone serve it?",
        )

    def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = request.get("headers") or {}
        seen = {"url": request["url"], "host": headers.get("Host"), "status": None, "page": None, "error": None}
        try:
            answer = api.request(
                "GET", request["url"], headers=headers, timeout=_LOOK_SECONDS, expect=_ANY_STATUS
            )
        except RollbackError as error:
            return {**seen, "error": str(error)}
        mark = answer.headers.get(self._page["header"].lower())
        shown = answer.status == self._page["status"] and mark == self._page["value"]
        return {**seen, "status": answer.status, "page": shown}


def _other(looks: list[dict[str, Any]], shown: bool) -> str:
    """The first look that is not as it should be, in words."""
    look = next(look for look in looks if look["page"] is not shown)
    place = f"{look['url']} (Host: {look['host']})" if look["host"] else look["url"]
    if look["error"]:
        return f"nobody answers: {look['error']}"
    return f"{place} answers {look['status']} {'without' if shown else 'with'} the page"


class Page:
    """The maintenance page of one balancer; who put it up is kept in a file of the module's own."""

    def __init__(self, provider: Provider, record: str, looks: Looks, deadline: Deadline, warn: Warn) -> None:
        self._provider = provider
        self._record = record
        self._looks = looks
        self._deadline = deadline
        self._warn = warn

    def read(self) -> dict[str, Any]:
        """Its state: enabled, lasting, text, owner, reason, run, since; the last four are None while it is off."""
        return self._state(self._provider.read())

    def look(self) -> list[dict[str, Any]]:
        return self._looks.take()

    def confirm(self, enabled: bool) -> list[dict[str, Any]]:
        """The looks once balancer and outside agree; Held when they do not before the deadline."""
        for _attempt in self._deadline.attempts(0.1, longest=1):
            if self._agrees(self._provider.read(), enabled):
                return self._looks.wait(enabled, self._deadline)
        raise Held(
            f"the balancer accepted the change, but maintenance is still {'off' if enabled else 'on'} when read back"
        )

    def enable(self, after: dict[str, Any], text: str) -> list[dict[str, Any]]:
        """Whose it is is written first: a page found after a crash must have a name on it."""
        try:
            write_atomically(self._record, canonical({key: after[key] for key in WHOSE}), 0o644)
        except OSError as error:
            self._warn(f"{self._record} could not be written ({error.strerror}): disabling will need force")
        self._provider.enable(text)
        return self.confirm(True)

    def disable(self) -> list[dict[str, Any]]:
        self._provider.disable()
        looks = self.confirm(False)
        try:
            os.unlink(self._record)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(f"{self._record} could not be removed ({error.strerror})")
        return looks

    def _state(self, seen: Seen) -> dict[str, Any]:
        up = seen.serving is not False or seen.lasting is True
        record = self._read_record() if up else {}
        return {
            "enabled": seen.serving,
            "lasting": seen.lasting,
            "text": seen.text if up else None,
            **{key: record.get(key) for key in WHOSE},
        }

    def _read_record(self) -> dict[str, Any]:
        try:
            return dict(read_json(self._record, {}))
        except (OSError, ValueError, TypeError) as error:
            self._warn(f"{self._record} cannot be read ({error}): nobody is on record for the page")
            return {}

    @staticmethod
    def _agrees(seen: Seen, enabled: bool) -> bool:
        """A page that would not last was warned about; a page that would come back is not off."""
        return seen.serving is enabled and (enabled or not seen.lasting)


def decided(before: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The state after what the module's parameters ask for; Refused where it would take away another's page."""
    run_id = (wanted["run"] or {}).get("id")
    mine = run_id is not None and before["run"] == run_id
    if wanted["state"] == "enabled":
        return _enabled(before, wanted, mine)
    after = {"enabled": False, "lasting": _told(before, False), "text": None, **dict.fromkeys(WHOSE)}
    if after != before and not mine and not wanted["force"]:
        raise Refused(f"maintenance was put up by {_whose(before)}; it stays up", "Ask them, or repeat with force.")
    return after


def _enabled(before: dict[str, Any], wanted: dict[str, Any], mine: bool) -> dict[str, Any]:
    text = plain_text(wanted["text"])
    whose = {
        "owner": validate.identifier(wanted["owner"], "owner"),
        "reason": validate.reason(wanted["reason"]),
        "run": (wanted["run"] or {}).get("id"),
    }
    if before["enabled"] and not mine and not wanted["force"]:
        return {**before, "lasting": _told(before, True)}
    untold = before["enabled"] and before["text"] is None
    return {
        "enabled": True,
        "lasting": _told(before, True),
        "text": None if untold else text,
        **whose,
        "since": before["since"] if mine else now(),
    }


def _told(before: dict[str, Any], lasting: bool) -> bool | None:
    return None if before["lasting"] is None else lasting


def _whose(state: dict[str, Any]) -> str:
    if not state["owner"]:
        return "somebody who left no record of it"
    return f"{state['owner']} in run {state['run']} since {state['since']} ({state['reason']})"


def contradiction(state: dict[str, Any]) -> str | None:
    """What the balancer's parts disagreed about, in words."""
    if state["lasting"] in (None, state["enabled"]):
        return None
    return f"the balancer's runtime said {_word(state['enabled'])}, its file {_word(state['lasting'])}"


def _word(on: bool) -> str:
    return "on" if on else "off"


def switch(page: Page, after: dict[str, Any], wanted: dict[str, Any], warn: Warn) -> list[dict[str, Any]]:
    """Make the change within the run's record and return the looks."""
    run = Run.of(wanted["run"])
    if after["enabled"]:
        return _despite_lost_record(run, lambda: page.enable(after, after["text"] or wanted["text"]), after, warn)
    with run.change("maintenance.disabled", after) as change:
        looks = page.disable()
        change.outcome = {"looks": looks}
    return looks


def _despite_lost_record(
    run: Run, enable: Callable[[], list[dict[str, Any]]], after: dict[str, Any], warn: Warn
) -> list[dict[str, Any]]:
    """Users are safer behind the page than in front of a broken system that only lacks a record of it."""
    looks = None
    failures: list[RollbackError] = []
    try:
        with run.change("maintenance.enabled", after) as change:
            try:
                looks = enable()
            except RollbackError as error:
                failures.append(error)
                raise
            change.outcome = {"looks": looks}
    except (OSError, Unknown) as error:
        if failures:
            raise failures[0] from None
        warn(f"MAINTENANCE IS NOT ON RECORD: {error}. Nothing else may be changed before that is cured.")
    return enable() if looks is None else looks
