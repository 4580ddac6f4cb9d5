#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: railway_deploy
short_description: Ship a built release to Railway and wait until it is live
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - Runs the command that deploys, in the directory of a release that M(marketsage.rollback.release) built, and waits
    until Railway lists the deployment that results as the active one.
  - The command reads the commit from C(release.json) in that directory, and sees to it that the deployed application
    says this release of itself. Railway need not know the commit of what is uploaded.
  - A command that failed or was interrupted may have shipped all the same; that is found out by reading Railway's list.
  - What is live already, or under way, is not shipped again.
options:
  commit:
    description: The full commit of the release.
    type: str
    required: true
  directory:
    description: The directory of the built release.
    type: path
    required: true
  command:
    description: The command that deploys, a list of words. No shell reads it.
    type: list
    elements: str
    required: true
  variables:
    description: Variables for the command, beside PATH, HOME, USER and LANG of the module itself.
    type: dict
    default: {}
  timeout:
    description: Seconds in which the command must end and the new deployment be live.
    type: int
    default: 300
  poll_interval:
    description: Longest pause in seconds between two looks; they begin at a fifth of it.
    type: float
    default: 5
attributes:
  check_mode:
    description: Says whether it would be shipped; the command is not run.
    support: full
  diff_mode:
    description: Shows the live commit before and after.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.railway
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Ship the release that was built
  marketsage.rollback.railway_deploy:
    token_file: /etc/marketsage/railway_project_token
    token_type: project
    service: marketsage-frontend
    commit: 5d1e0c7a2b3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d
    directory: /srv/frontend/releases/5d1e0c7a2b3f
    command: [railway, up, --detach]
    run: "{{ rollback_run }}"
"""

RETURN = r"""
live:
  description: The deployment that was current when the module began; null where there was none.
  returned: success
  type: dict
deployed:
  description: The deployment that is live now; null in check mode.
  returned: success
  type: dict
adopted:
  description: The id of a deployment of the commit that was under way already; null where none was.
  returned: success
  type: str
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.command import execute, tail, with_variables, words
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.railway import MaybeApplied, Service, State
from ansible_collections.marketsage.rollback.plugins.module_utils.railway_delivery import (
    PLACE_ARGUMENTS,
    Delivery,
    Wanted,
    check_place,
    service_of,
    under_way,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

STEP = "railway_deploy"


def check(params: dict[str, Any]) -> None:
    check_place(params)
    validate.commit(params["commit"])
    words(params["command"], "command")
    if not os.path.isfile(os.path.join(validate.absolute_path(params["directory"], "directory"), "release.json")):
        raise errors.BadInput(f"directory: {params['directory']} holds no built release (no release.json)")


def ship(params: dict[str, Any], deadline: Deadline) -> None:
    """Run the command; MaybeApplied where it fails, for it may have shipped all the same."""
    command = params["command"]
    code, output = execute("command", command, params["directory"], with_variables(params["variables"]), deadline)
    if code != 0:
        raise MaybeApplied(f"command: {command[0]} ended with {code}: {tail(output)}")


def deploy(params: dict[str, Any], service: Service, state: State, deadline: Deadline) -> dict[str, Any]:
    """Ship where nothing of the commit is under way, and wait until it is live."""
    commit = params["commit"]
    adopted = under_way(state, state.current, commit) if state.current else []
    known = frozenset(one.id for one in state.deployments if one not in adopted)
    delivery = Delivery(service, Wanted(commit, known, uploaded=True), deadline, params["poll_interval"])
    if not adopted:
        intent = {"commit": commit, "directory": params["directory"]}
        delivery.order(Run.of(params["run"]), STEP, intent, lambda: ship(params, deadline))
    return {"deployed": delivery.wait_until_live().shown(), "adopted": adopted[0].id if adopted else None}


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    check(params)
    deadline = Deadline(params["timeout"])
    service = service_of(params, deadline)
    state = service.history()
    is_live = state.live is not None and state.live.commit == params["commit"]
    result = {
        "changed": not is_live,
        "live": state.current.shown() if state.current else None,
        "deployed": state.live.shown() if state.live and is_live else None,
        "adopted": None,
        "diff": {"before": {"commit": state.current and state.current.commit}, "after": {"commit": params["commit"]}},
    }
    if not is_live and not module.check_mode:
        result.update(deploy(params, service, state, deadline))
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **PLACE_ARGUMENTS,
            "commit": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "variables": {"type": "dict", "default": {}},
            "run": RUN_ARGUMENT,
        },
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
