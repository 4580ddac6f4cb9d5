#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_branch
short_description: Commit a component's earlier state, on a rollback branch
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - Takes one component of a repository back to what it was in a target, and leaves everything else as it is in the live
    commit. Files that were added under the component's paths since the target are removed.
  - The commit follows from live commit, target, component and paths alone, so that its id is known before it exists and
    is the same on every host.
  - No working tree is used; nothing of what runs or is built is touched.
options:
  state:
    description:
      - V(composed) works out what would be committed for each of O(targets), and writes nothing into the repository.
      - V(present) commits it and makes the branch. Without O(paths) the branch is made of O(commit) as it is.
    type: str
    choices: [composed, present]
    default: composed
  repository:
    description: The bare repository.
    type: path
    required: true
  live:
    description: The full commit that is live.
    type: str
  targets:
    description: Full commits that the component could be taken from. One that the repository lacks is left out.
    type: list
    elements: str
    default: []
  target:
    description: The full commit that the component is taken from. Required with O(state=present) and O(paths).
    type: str
  component:
    description: The component's name. Required with O(paths).
    type: str
  paths:
    description: The component's files and directories, relative to the repository.
    type: list
    elements: str
    default: []
  commit:
    description: The commit that the plan names; any other that results is refused. Required with O(state=present).
    type: str
  branch:
    description:
      - The branch to make, such as V(rollback/backend-20261124-0315). Required with O(state=present).
      - Where a branch of that name is of another commit, a number is added; no branch is ever moved.
    type: str
  timeout:
    description: Seconds after which git is killed.
    type: int
    default: 60
attributes:
  check_mode:
    description: Says whether the branch would be made; what would be committed is worked out all the same.
    support: full
  diff_mode:
    description: Shows the branch's commit before and after.
    support: full
  platform:
    description: Needs git.
    platforms: posix
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Work out what the auth module would go back to
  marketsage.rollback.rollback_branch:
    repository: /srv/backend/repository.git
    live: 9a0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f
    targets: [3f0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f]
    component: auth
    paths: [src/modules/auth]

- name: Commit it on its branch
  marketsage.rollback.rollback_branch:
    state: present
    repository: /srv/backend/repository.git
    live: 9a0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f
    target: 3f0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f
    component: auth
    paths: [src/modules/auth]
    commit: 5d1e0c7a2b3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d
    branch: rollback/backend-20261124-0315
    run: "{{ rollback_run }}"
"""

RETURN = r"""
compositions:
  description: What would be committed for each target.
  returned: O(state=composed)
  type: list
  elements: dict
  contains:
    target:
      description: The target.
      type: str
    commit:
      description: The commit; null where the component is the same in the live commit and the target.
      type: str
    changed:
      description: Files that differ.
      type: list
      elements: str
    restored:
      description: Files that were deleted since the target.
      type: list
      elements: str
    removed:
      description: Files that were added since the target.
      type: list
      elements: str
branch:
  description: The branch.
  returned: O(state=present)
  type: str
commit:
  description: The branch's commit.
  returned: O(state=present)
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
from itertools import count
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, hybrid, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.command import kept_environment
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import Repository
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run


def repository_of(parameters: dict[str, Any]) -> Repository:
    path = validate.absolute_path(parameters["repository"], "repository")
    if not os.path.isdir(os.path.join(path, "objects")):
        raise errors.BadInput(f"repository: there is no bare git repository {path}")
    return Repository(path, kept_environment(), Deadline(validate.positive(parameters["timeout"], "timeout")))


def composed(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    repository = repository_of(parameters)
    component = hybrid.Component.of(parameters["component"], parameters["paths"])
    live = repository.resolve(validate.commit(parameters["live"], "live"), "live")
    targets = [validate.commit(target, "targets") for target in parameters["targets"]]
    worked_out = [hybrid.work_out(repository, live, target, component) for target in targets if repository.has(target)]
    return {"changed": False, "compositions": [one.shown() for one in worked_out]}


def present(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    repository = repository_of(parameters)
    commit = validate.commit(parameters["commit"])
    branch = free_name(repository, validate.ref(parameters["branch"], "branch"), commit)
    before = repository.branch(branch)
    if before is None and not module.check_mode:
        with Run.of(parameters["run"]).change("branch_made", {"branch": branch, "commit": commit}) as change:
            make(repository, parameters, commit, branch)
            change.outcome = {"commit": repository.branch(branch)}
    return {
        "changed": before is None,
        "branch": branch,
        "commit": commit,
        "diff": {"before": {"commit": before}, "after": {"commit": commit}},
    }


def free_name(repository: Repository, branch: str, commit: str) -> str:
    """The branch, numbered where one of that name is of another commit already."""
    names = (branch if number == 1 else f"{branch}-{number}" for number in count(1))
    return next(name for name in names if repository.branch(name) in (None, commit))


def make(repository: Repository, parameters: dict[str, Any], commit: str, branch: str) -> None:
    """Write the commit where it is a component's, and the branch of it."""
    if parameters["paths"]:
        component = hybrid.Component.of(parameters["component"], parameters["paths"])
        live, target = (validate.commit(parameters[name], name) for name in ("live", "target"))
        made = hybrid.commit(repository, live, target, component).commit
        if made != commit:
            raise errors.Held(f"{component.name} of {target} on {live} makes commit {made}, but the plan says {commit}")
    repository.make_branch(branch, repository.resolve(commit, "commit"))


STATES = {"composed": composed, "present": present}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "default": "composed"},
            "repository": {"type": "path", "required": True},
            "live": {"type": "str"},
            "targets": {"type": "list", "elements": "str", "default": []},
            "target": {"type": "str"},
            "component": {"type": "str"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "commit": {"type": "str"},
            "branch": {"type": "str"},
            "timeout": {"type": "int", "default": 60},
            "run": RUN_ARGUMENT,
        },
        required_if=[
            ("state", "composed", ["live", "component", "paths"]),
            ("state", "present", ["commit", "branch"]),
        ],
        supports_check_mode=True,
    )
    errors.finish(module, lambda module: STATES[module.params["state"]](module))


if __name__ == "__main__":
    main()
