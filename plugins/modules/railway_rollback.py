#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put a Railway service back on an earlier deployment."""
from __future__ import annotations

DOCUMENTATION = r"""
module: railway_rollback
short_description: Put a Railway service back on an earlier deployment
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - Finds the deployment to go back to, orders it from Railway, and waits until what results from it is live.
  - A rollback is a new deployment of the image B(and the variables) of the time; it does not move the branch.
    With automatic deployments on, the next push ships what was rolled back.
  - Success is reported only when Railway lists the resulting deployment as the active one.
  - A reply that was lost is resolved by reading; a deployment under way that results from the same target is adopted.
options:
  api_url:
    description: Railway's GraphQL endpoint.
    type: str
    default: https://backboard.railway.com/graphql/v2
  token_file:
    description: File (mode 0600, owned by the user of the task) that holds the token.
    type: path
    required: true
  token_type:
    description:
      - What the token is. V(account) covers account and workspace tokens.
      - A V(project) token belongs to one environment of one project and brings both along.
    type: str
    choices: [account, project]
    required: true
  project:
    description: Name or id of the project. Required with an account token; with a project token it is checked.
    type: str
  environment:
    description: Name or id of the environment. Required with an account token; with a project token it is checked.
    type: str
  service:
    description: Name or id of the service.
    type: str
    required: true
  deployment:
    description: Id of the deployment to go back to.
    type: str
  commit:
    description: Full commit to go back to; the newest deployment of it is taken.
    type: str
  avoid:
    description: Full commits that are known to be bad; they are never gone back to.
    type: list
    elements: str
    default: []
  fallback:
    description: What to do when no image is kept any more. V(redeploy) builds the commit again, which takes minutes.
    type: str
    choices: [redeploy, none]
    default: none
  timeout:
    description: Seconds in which the new deployment must be live.
    type: int
    default: 300
  poll_interval:
    description: Longest pause in seconds between two looks; they begin at a fifth of it.
    type: float
    default: 5
  run:
    description: The open run that this change belongs to. Required where something is to be changed.
    type: dict
    suboptions:
      id:
        description: Id of the run.
        type: str
        required: true
      fence:
        description: Fencing number of the run.
        type: int
        required: true
      state_dir:
        description: Directory on this host for the lock, the highest fencing number seen and the journal.
        type: path
        required: true
attributes:
  check_mode:
    description: Resolves and reports everything, and changes nothing.
    support: full
  diff_mode:
    description: Shows the live deployment before and after.
    support: full
  platform:
    description: Runs wherever Railway's API can be reached.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: See what a rollback of the frontend would do
  marketsage.rollback.railway_rollback:
    token_file: /etc/marketsage/railway_project_token
    token_type: project
    service: marketsage-frontend
  check_mode: true
  register: plan

- name: Put the frontend back on the deployment of the plan
  marketsage.rollback.railway_rollback:
    token_file: /etc/marketsage/railway_project_token
    token_type: project
    service: marketsage-frontend
    deployment: "{{ plan.target.id }}"
    run: "{{ run }}"
"""

RETURN = r"""
method:
  description:
    - How the target is reached; V(none) where it is live already.
  returned: success
  type: str
  sample: rollback
place:
  description: Names of the project, environment and service.
  returned: success
  type: dict
  sample: {project: marketsage, environment: production, service: marketsage-frontend}
live:
  description: The deployment that was current when the module began.
  returned: success
  type: dict
  contains: &deployment
    id:
      description: Its id.
      type: str
    status:
      description: Railway's word for its state.
      type: str
    commit:
      description: The commit it was made from; null where it was not made from one.
      type: str
    branch:
      description: The branch it was made from.
      type: str
    message:
      description: The commit's message.
      type: str
    author:
      description: The commit's author.
      type: str
    created:
      description: When it was created, as Railway says it.
      type: str
    can_rollback:
      description: Whether Railway still keeps its image.
      type: bool
target:
  description: The deployment that is gone back to.
  returned: success
  type: dict
  contains: *deployment
adopted:
  description: Id of a deployment of the target that was under way already, so that none was ordered.
  returned: success
  type: str
candidates:
  description: The deployments that could be gone back to, the best first; newest first, those to be built again last.
  returned: success
  type: list
  elements: dict
  contains: *deployment
restored:
  description: The deployment that is live now, as read back; null in check mode and where nothing had to be done.
  returned: success
  type: dict
  contains: *deployment
retention_left:
  description:
    - Seconds for which Railway keeps the target's image, by the documented hours of the project's plan.
    - null where it cannot be known; RV(retention_note) says why.
  returned: success
  type: int
retention_note:
  description: Where RV(retention_left) comes from.
  returned: success
  type: str
variables_changed:
  description: Names of the variables that the rollback changes; null where Railway does not tell.
  returned: success
  type: list
  elements: str
auto_deploy:
  description: Whether Railway ships the next push by itself; null where it does not tell.
  returned: success
  type: bool
"""

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, validate
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
    ONCE_GOOD,
    Client,
    Deployment,
    MaybeApplied,
    Service,
    State,
    retention_left,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

STEP = "railway_rollback"
# An ordered deployment is looked for in Railway's list for this many of the longest pauses.
_PAUSES_TO_SHOW_UP = 4


@dataclass(frozen=True)
class Wish:
    """What the operator said about where to go."""

    pinned: Deployment | None
    commit: str | None
    avoid: tuple[str, ...]
    may_redeploy: bool


@dataclass(frozen=True)
class Decision:
    """Where to go from where, and how (rollback, redeploy, none).

    `adopted` are deployments of the target's commit that are under way; `known` is every other one that exists.
    """

    current: Deployment
    target: Deployment
    method: str
    candidates: list[Deployment]
    adopted: list[Deployment]
    known: frozenset[str]


class NoTarget(Refused):
    """Nothing can be gone back to; the result still says what is live, which may be all that a reader wants."""

    def __init__(self, current: Deployment, why: str) -> None:
        advice = "Name another deployment or commit, or allow fallback: redeploy."
        super().__init__(f"there is nothing to go back to from {current}: {why}", advice)
        self._current = current

    def result(self) -> dict[str, Any]:
        return {**super().result(), "live": self._current.shown(), "candidates": []}


def decide(state: State, wish: Wish) -> Decision:
    """Choose the target among what Railway lists. Refused where there is none, or where another one is under way."""
    current = state.current
    if current is None:
        raise Refused("the service has never been deployed, so there is nothing to go back to")
    earlier = earlier_than(current, state, wish.avoid)
    candidates = restorable(earlier, wish.may_redeploy)
    if wish.pinned or wish.commit:
        target, method = choose_pinned(state, current, wish)
    elif candidates:
        target, method = candidates[0], method_for(candidates[0])
    else:
        raise NoTarget(current, why_not(earlier))
    adopted = under_way(state, current, target)
    known = frozenset(one.id for one in state.deployments if one not in adopted)
    return Decision(current, target, method, candidates, adopted, known)


def earlier_than(current: Deployment, state: State, avoid: tuple[str, ...]) -> list[Deployment]:
    """The deployments of another commit from before the current one, newest first."""
    unwanted = (None, current.commit, *avoid)
    return [one for one in state.deployments if one.created < current.created and one.commit not in unwanted]


def restorable(deployments: list[Deployment], may_redeploy: bool) -> list[Deployment]:
    """Those once good that can be put back: the ones whose image is kept, then the ones that can be built again."""
    good = [one for one in deployments if one.status in ONCE_GOOD]
    rebuilt = [one for one in good if may_redeploy and one.can_redeploy and not one.can_rollback]
    return [one for one in good if one.can_rollback] + rebuilt


def method_for(target: Deployment) -> str:
    return "rollback" if target.can_rollback else "redeploy"


def choose_pinned(state: State, current: Deployment, wish: Wish) -> tuple[Deployment, str]:
    """The target that was asked for by id or commit; method none where it is live already."""
    pinned = wish.pinned
    commit = pinned.commit if pinned else wish.commit
    if commit in wish.avoid:
        raise Refused(f"commit {commit} is marked bad and is not gone back to")
    same = pinned is not None and pinned.id == current.id
    if state.live and (same or (commit is not None and commit == current.commit)):
        return pinned or current, "none"
    named = [pinned] if pinned else [one for one in state.deployments if one.commit == commit]
    found = restorable(named, wish.may_redeploy)
    if not found:
        asked = f"deployment {pinned.id}" if pinned else f"commit {commit}"
        raise Refused(f"Railway cannot put back {asked}: {why_not(named)}", "Name another one.")
    return found[0], method_for(found[0])


def why_not(deployments: list[Deployment]) -> str:
    if not deployments:
        return "Railway lists no other one that is not marked bad"
    return "; ".join(f"{one}, image {'kept' if one.can_rollback else 'gone'}" for one in deployments[:5])


def under_way(state: State, current: Deployment, target: Deployment) -> list[Deployment]:
    """Deployments of the target that are under way already. Refused where one of anything else is."""
    moving = [one for one in state.deployments if one.in_flight and one.created > current.created]
    others = [one for one in moving if one.commit is None or one.commit != target.commit]
    if others:
        raise Refused(f"{others[0]} is under way and would go live over the rollback", "Wait for it, or cancel it.")
    return moving


class Rollback:
    """The decision being carried out."""

    def __init__(self, service: Service, decision: Decision, deadline: Deadline, interval: float) -> None:
        self._service = service
        self._decision = decision
        self._deadline = deadline
        self._interval = interval
        self._unread = ""

    def order(self, run: Run) -> None:
        """Send the mutation, a second time only where reading showed that the first one was not applied."""
        target, method = self._decision.target, self._decision.method
        interrupted = was_interrupted(run)
        with run.change(STEP, {"method": method, "target": target.id, "commit": target.commit}) as change:
            if interrupted and self._shows_up():
                change.outcome = {"ordered": "before the interruption"}
                return
            for _attempt in (1, 2):
                try:
                    self._service.order(method, target)
                except MaybeApplied as error:
                    lost = str(error)
                else:
                    change.outcome = {"ordered": "accepted"}
                    return
                if self._shows_up():
                    change.outcome = {"ordered": "found by reading", "lost": lost}
                    return
            raise Held(f"{lost}; no deployment of {target.commit} has appeared", "Resume when Railway answers again.")

    def _shows_up(self) -> bool:
        """Whether a new deployment of the target's commit appears in Railway's list."""
        window = Deadline(min(_PAUSES_TO_SHOW_UP * self._interval, self._deadline.left()))
        for _attempt in window.attempts(self._interval / 5, longest=self._interval):
            state = self._look()
            if state and self._results(state):
                return True
        if self._unread:
            question = f"Did Railway make a new deployment of commit {self._decision.target.commit}?"
            raise Unknown(f"{self._unread}. {question}", "Look, then resume.")
        return False

    def wait_until_live(self) -> Deployment:
        """The new deployment of the target's commit, once Railway lists it as the live one."""
        seen = "nothing"
        for _attempt in self._deadline.attempts(self._interval / 5, longest=self._interval):
            state = self._look()
            if state is None:
                continue
            restored = self._restored_in(state)
            if restored:
                return restored
            new = ", ".join(map(str, state.arrived(self._decision.known))) or "no new deployment"
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

    def _results(self, state: State) -> list[Deployment]:
        """What has arrived since the decision and is of the target's commit."""
        return [one for one in state.arrived(self._decision.known) if one.commit == self._decision.target.commit]

    def _restored_in(self, state: State) -> Deployment | None:
        """The live deployment if it results from the decision; None while one may become it. Held if none will."""
        ours, live = self._results(state), state.live
        if live and live.id not in self._decision.known:
            if live.commit != self._decision.target.commit:
                raise Held(f"{live} went live over the rollback", "Stop further deployments, then start again.")
            return None if any(one.in_flight for one in ours) else live
        if ours and all(one.status in ENDED_BADLY for one in ours):
            why = f": {ours[0].diagnosis}" if ours[0].diagnosis else ""
            raise Held(f"{ours[0]} did not become live{why}; live is {live or 'nothing'}", "Choose another target.")
        return None


def was_interrupted(run: Run) -> bool:
    """Whether the run's record says that the mutation may have been sent, and not how that ended."""
    journal = Journal(os.path.join(run.state_dir, "journal", f"{run.id}.jsonl"))
    kinds = [entry["kind"] for entry in journal.entries() if entry["step"] == STEP]
    return kinds[-1:] == ["intent"]


def report(service: Service, decision: Decision) -> dict[str, Any]:
    """What an operator wants to know before it is done."""
    current, target, place = decision.current, decision.target, service.place
    changes = decision.method != "none"
    left = retention_left(place.plan, target, datetime.now(timezone.utc)) if target.can_rollback else None
    return {
        "changed": changes,
        "method": decision.method,
        "place": {"project": place.project, "environment": place.environment, "service": place.service},
        "live": current.shown(),
        "target": target.shown(),
        "adopted": decision.adopted[0].id if decision.adopted else None,
        "candidates": [one.shown() for one in decision.candidates],
        "restored": None,
        "retention_left": left,
        "retention_note": retention_note(place.plan, target, left),
        "variables_changed": service.changed_variables(current, target) if changes else [],
        "auto_deploy": service.auto_deploy(),
    }


def retention_note(plan: str, target: Deployment, left: int | None) -> str:
    if left is not None:
        return f"estimated from the documented hours of the plan {plan}; Railway does not report it"
    if not target.can_rollback:
        return "Railway keeps no image of it to roll back to"
    return "unknown: Railway does not report it, and the plan or the time of removal does not tell"


def diff(result: dict[str, Any]) -> dict[str, Any]:
    """What is live before and after, without the id that a new deployment has only afterwards."""
    after = result["restored"] or (result["target"] if result["changed"] else result["live"])
    names = ("commit", "branch", "message")
    return {side: {name: one[name] for name in names} for side, one in (("before", result["live"]), ("after", after))}


def checked(params: dict[str, Any]) -> None:
    """BadInput for values that the argument specification lets through."""
    validate.url(params["api_url"], "api_url")
    validate.positive(params["timeout"], "timeout")
    if not 0 < params["poll_interval"] <= params["timeout"]:
        raise BadInput(f"poll_interval: {params['poll_interval']} is not above 0 and at most timeout")
    if params["deployment"] is not None:
        validate.identifier(params["deployment"], "deployment")
    if params["commit"] is not None:
        validate.commit(params["commit"])
    for commit in params["avoid"]:
        validate.commit(commit, "avoid")
    if params["token_type"] == "account":
        for name in ("project", "environment"):
            if not params[name]:
                raise BadInput(f"{name}: an account token needs the name or id of the {name}")


def service_of(params: dict[str, Any], deadline: Deadline) -> Service:
    token = read_secret(params["token_file"], "token_file")
    client = Client(params["api_url"], token, params["token_type"], deadline)
    return Service(client, client.locate(params["project"], params["environment"], params["service"]))


def wish_of(params: dict[str, Any], service: Service, state: State) -> Wish:
    wanted = params["deployment"]
    listed = next((one for one in state.deployments if one.id == wanted), None)
    pinned = service.deployment(wanted) if wanted and not listed else listed
    return Wish(pinned, params["commit"], tuple(params["avoid"]), params["fallback"] == "redeploy")


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    checked(params)
    deadline = Deadline(params["timeout"])
    service = service_of(params, deadline)
    state = service.history()
    decision = decide(state, wish_of(params, service, state))
    result = report(service, decision)
    if result["changed"] and not module.check_mode:
        rollback = Rollback(service, decision, deadline, params["poll_interval"])
        if not decision.adopted:
            rollback.order(Run.of(params["run"]))
        result["restored"] = rollback.wait_until_live().shown()
    return {**result, "diff": diff(result)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "api_url": {"type": "str", "default": "https://backboard.railway.com/graphql/v2"},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "token_type": {"type": "str", "choices": ["account", "project"], "required": True, "no_log": False},
            "project": {"type": "str"},
            "environment": {"type": "str"},
            "service": {"type": "str", "required": True},
            "deployment": {"type": "str"},
            "commit": {"type": "str"},
            "avoid": {"type": "list", "elements": "str", "default": []},
            "fallback": {"type": "str", "choices": ["redeploy", "none"], "default": "none"},
            "timeout": {"type": "int", "default": 300},
            "poll_interval": {"type": "float", "default": 5},
            "run": RUN_ARGUMENT,
        },
        mutually_exclusive=[("deployment", "commit")],
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
