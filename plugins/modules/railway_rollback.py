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
attributes:
  check_mode:
    description: Resolves and reports everything, and changes nothing.
    support: full
  diff_mode:
    description: Shows the live deployment before and after.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.railway
  - marketsage.rollback.run
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
  description:
    - The deployments that could be gone back to, the best first; newest first, those to be built again last.
    - Each has its own RV(retention_left) too.
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

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.railway import (
    ONCE_GOOD,
    Deployment,
    Service,
    State,
    retention_left,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.railway_delivery import (
    PLACE_ARGUMENTS,
    Delivery,
    Wanted,
    check_place,
    service_of,
    under_way,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

STEP = "railway_rollback"


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
    adopted = under_way(state, current, target.commit)
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


def order(delivery: Delivery, service: Service, decision: Decision, run: Run) -> None:
    target, method = decision.target, decision.method
    intent = {"method": method, "target": target.id, "commit": target.commit}
    delivery.order(run, STEP, intent, lambda: service.order(method, target))


def report(service: Service, decision: Decision) -> dict[str, Any]:
    """What an operator wants to know before it is done."""
    current, target, place = decision.current, decision.target, service.place
    changes = decision.method != "none"
    left = image_left(place.plan, target)
    return {
        "changed": changes,
        "method": decision.method,
        "place": {"project": place.project, "environment": place.environment, "service": place.service},
        "live": current.shown(),
        "target": target.shown(),
        "adopted": decision.adopted[0].id if decision.adopted else None,
        "candidates": [{**one.shown(), "retention_left": image_left(place.plan, one)} for one in decision.candidates],
        "restored": None,
        "retention_left": left,
        "retention_note": retention_note(place.plan, target, left),
        "variables_changed": service.changed_variables(current, target) if changes else [],
        "auto_deploy": service.auto_deploy(),
    }


def image_left(plan: str, deployment: Deployment) -> int | None:
    """Seconds for which the image of a deployment is still kept; None where there is none, or nothing tells."""
    return retention_left(plan, deployment, datetime.now(timezone.utc)) if deployment.can_rollback else None


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
    check_place(params)
    if params["deployment"] is not None:
        validate.identifier(params["deployment"], "deployment")
    if params["commit"] is not None:
        validate.commit(params["commit"])
    for commit in params["avoid"]:
        validate.commit(commit, "avoid")


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
        delivery = Delivery(service, Wanted(decision.target.commit, decision.known), deadline, params["poll_interval"])
        if not decision.adopted:
            order(delivery, service, decision, Run.of(params["run"]))
        result["restored"] = delivery.wait_until_live().shown()
    return {**result, "diff": diff(result)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **PLACE_ARGUMENTS,
            "deployment": {"type": "str"},
            "commit": {"type": "str"},
            "avoid": {"type": "list", "elements": "str", "default": []},
            "fallback": {"type": "str", "choices": ["redeploy", "none"], "default": "none"},
            "run": RUN_ARGUMENT,
        },
        mutually_exclusive=[("deployment", "commit")],
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
