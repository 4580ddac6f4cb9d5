# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A deployment at Railway, ordered by whatever means and followed until it is live."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import (
    BadInput,
    Held,
    Refused,
    RollbackError,
    Unknown,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.module_utils.railway import (
    ENDED_BADLY,
    Client,
    Deployment,
    MaybeApplied,
    Service,
    State,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run

# An ordered deployment is looked for in Railway's list for this many of the longest pauses.
_PAUSES_TO_SHOW_UP = 4


@dataclass(frozen=True)
class Wanted:
    """A deployment of `commit` that is none of the `known` ones; Railway may not tell the commit of an upload."""

    commit: str | None
    known: frozenset[str]
    uploaded: bool = False

    def arrived_in(self, state: State) -> list[Deployment]:
        return [one for one in state.arrived(self.known) if self.may_be(one)]

    def may_be(self, deployment: Deployment) -> bool:
        return deployment.commit == self.commit or (self.uploaded and deployment.commit is None)


PLACE_ARGUMENTS = {
    "api_url": {"type": "str", "default": "https://backboard.railway.com/graphql/v2"},
    "token_file": {"type": "path", "required": True, "no_log": False},
    "token_type": {"type": "str", "choices": ["account", "project"], "required": True, "no_log": False},
    "project": {"type": "str"},
    "environment": {"type": "str"},
    "service": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 300},
    "poll_interval": {"type": "float", "default": 5},
}


def check_place(params: dict[str, Any]) -> None:
    """BadInput for values of PLACE_ARGUMENTS that the argument specification lets through."""
    validate.url(params["api_url"], "api_url")
    validate.positive(params["timeout"], "timeout")
    if not 0 < params["poll_interval"] <= params["timeout"]:
        raise BadInput(f"poll_interval: {params['poll_interval']} is not above 0 and at most timeout")
    if params["token_type"] == "account":
        for name in ("project", "environment"):
            if not params[name]:
                raise BadInput(f"{name}: an account token needs the name or id of the {name}")


def service_of(params: dict[str, Any], deadline: Deadline) -> Service:
    """The service that PLACE_ARGUMENTS name."""
    token = read_secret(params["token_file"], "token_file")
    client = Client(params["api_url"], token, params["token_type"], deadline)
    return Service(client, client.locate(params["project"], params["environment"], params["service"]))


def under_way(state: State, current: Deployment, commit: str | None) -> list[Deployment]:
    """Deployments of a commit that are under way already. Refused where one of anything else is."""
    moving = [one for one in state.deployments if one.in_flight and one.created > current.created]
    others = [one for one in moving if one.commit is None or one.commit != commit]
    if others:
        raise Refused(f"{others[0]} is under way and would go live over the rollback", "Wait for it, or cancel it.")
    return moving


class Delivery:
    """Orders what is wanted and waits until Railway lists it as live."""

    def __init__(self, service: Service, wanted: Wanted, deadline: Deadline, interval: float) -> None:
        self._service = service
        self._wanted = wanted
        self._deadline = deadline
        self._interval = interval
        self._unread = ""

    def order(self, run: Run, step: str, intent: dict[str, Any], send: Callable[[], None]) -> None:
        """Send the order, a second time only where reading showed that the first one was not applied."""
        interrupted = was_interrupted(run, step)
        with run.change(step, intent) as change:
            if interrupted and self._shows_up():
                change.outcome = {"ordered": "before the interruption"}
                return
            for _attempt in (1, 2):
                try:
                    send()
                except MaybeApplied as error:
                    lost = str(error)
                else:
                    change.outcome = {"ordered": "accepted"}
                    return
                if self._shows_up():
                    change.outcome = {"ordered": "found by reading", "lost": lost}
                    return
            raise Held(f"{lost}; no deployment of {self._wanted.commit} has appeared", "Resume when that is mended.")

    def _shows_up(self) -> bool:
        """Whether a new deployment of the wanted commit appears in Railway's list."""
        window = Deadline(min(_PAUSES_TO_SHOW_UP * self._interval, self._deadline.left()))
        for _attempt in window.attempts(self._interval / 5, longest=self._interval):
            state = self._look()
            if state and self._wanted.arrived_in(state):
                return True
        if self._unread:
            question = f"Did Railway make a new deployment of commit {self._wanted.commit}?"
            raise Unknown(f"{self._unread}. {question}", "Look, then resume.")
        return False

    def wait_until_live(self) -> Deployment:
        """The new deployment of the wanted commit, once Railway lists it as the live one."""
        seen = "nothing"
        for _attempt in self._deadline.attempts(self._interval / 5, longest=self._interval):
            state = self._look()
            if state is None:
                continue
            delivered = self._delivered_in(state)
            if delivered:
                return delivered
            new = ", ".join(map(str, state.arrived(self._wanted.known))) or "no new deployment"
            seen = f"{new}; live is {state.live or 'nothing'}"
        late = f"not live within {self._deadline.seconds:g} s; last seen: {seen}"
        if self._unread:
            raise Unknown(f"{self._unread}; {late}. Which deployment is live?", "Look, then resume.")
        raise Held(late, "Look at the service, then resume.")

    def _look(self) -> State | None:
        """The state; None where it cannot be read just now."""
        try:
            state = self._service.recent()
        except RollbackError as error:
            self._unread = str(error)
            return None
        self._unread = ""
        return state

    def _delivered_in(self, state: State) -> Deployment | None:
        """The live deployment if it is the wanted one; None while one may become it. Held if none will."""
        ours, live = self._wanted.arrived_in(state), state.live
        if live and live.id not in self._wanted.known:
            if not self._wanted.may_be(live):
                raise Held(f"{live} went live over the rollback", "Stop further deployments, then start again.")
            return None if any(one.in_flight for one in ours) else live
        if ours and all(one.status in ENDED_BADLY for one in ours):
            why = f": {ours[0].diagnosis}" if ours[0].diagnosis else ""
            raise Held(f"{ours[0]} did not become live{why}; live is {live or 'nothing'}", "Choose another target.")
        return None


def was_interrupted(run: Run, step: str) -> bool:
    """Whether the run's record says that the order may have been sent, and not how that ended."""
    journal = Journal(os.path.join(run.state_dir, "journal", f"{run.id}.jsonl"))
    kinds = [entry["kind"] for entry in journal.entries() if entry["step"] == step]
    return kinds[-1:] == ["intent"]
