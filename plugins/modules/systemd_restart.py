#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_restart
short_description: Put a service of systemd on the release that a directory holds, and prove it
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - Restarts a service whose main process does not run the wanted release yet, and succeeds only when the service is
    active, its main process stays the same for a while, and C(/proc/<pid>/cwd) is the release's directory.
  - What already runs the release is left alone, so a second run changes nothing, and a run that was killed is
    finished by the next one.
  - The unit's C(WorkingDirectory) is the link to the live release. systemd resolves it at each start, so that a restart
    is enough; nothing is frozen.
options:
  unit:
    description: The service's exact name, such as V(berths.service).
    type: str
    required: true
  scope:
    description: Whose manager has it. For V(user) the E(XDG_RUNTIME_DIR) of the user goes into O(environment).
    type: str
    choices: [system, user]
    default: system
  current:
    description: The link to the live release. What it resolves to when the module starts is the wanted release.
    type: path
  release:
    description: The wanted release's directory. With O(current) also given, both must be the same.
    type: path
  timeout:
    description: Seconds after which the module gives up.
    type: int
    default: 60
  settle:
    description:
      - Seconds for which the main process must stay the same before the release counts as running. A service of
        C(Type=notify) or C(Type=forking) has said itself that it is up; any other counts as started at once.
    type: float
    default: 1
  environment:
    description: Variables for C(systemctl).
    type: dict
    default: {}
attributes:
  check_mode:
    description: Reads the service and reports whether it would be restarted.
    support: full
  diff_mode:
    description: Shows the release and the state of the service.
    support: full
  platform:
    description: Needs systemd, and C(/proc) to prove which release a process runs.
    platforms: linux
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Run the release that current points to
  marketsage.rollback.systemd_restart:
    unit: berths.service
    current: /srv/berths/current
    run: "{{ rollback_run }}"
"""

RETURN = r"""
unit:
  description: The service.
  returned: success
  type: str
release:
  description: The directory of the release that its main process runs.
  returned: success
  type: str
action:
  description: What was done, or would be in check mode. V(none) or V(restart).
  returned: success
  type: str
service:
  description: The service as read at the end. When the module fails, as it was last seen.
  returned: success, or when the release could not be proven
  type: dict
  contains:
    active:
      description: systemd's C(ActiveState).
      type: str
    sub:
      description: systemd's C(SubState).
      type: str
    pid:
      description: The main process, 0 where there is none.
      type: int
    restarts:
      description: How often systemd has restarted it by itself.
      type: int
    release:
      description: The main process's working directory; null where there is none or it cannot be read.
      type: str
"""

import time
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import wanted_release
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run
from ansible_collections.marketsage.rollback.plugins.module_utils.systemd import Service, State

# Longest that systemd is given to end what an earlier run or a deploy began before it is decided what is left to do.
_TRANSITION_SECONDS = 10
_POLL_SECONDS = 0.05
_UNASKED_RESTARTS = 2
_STEP = "systemd_restart"


class Unproven(errors.Held):
    """The service does not run the wanted release; says what was seen."""

    def __init__(self, unit: str, release: str, state: State) -> None:
        seen = f"is {state.active} ({state.sub})"
        if state.active == "active":
            seen = f"runs {state.release or 'what cannot be read'}"
        if state.restarts:
            seen += f" and was restarted {state.restarts} times by systemd"
        super().__init__(
            f"{unit}: it {seen}, not {release}",
            f"Read: journalctl --unit {unit}, then resume, or roll back to another release.",
        )
        self._state = state

    def result(self) -> dict[str, Any]:
        return {**super().result(), "service": self._state.shown()}


def prove(service: Service, release: str, settle: float, deadline: Deadline) -> State:
    """The service once its main process runs the release and has stayed the same for `settle` seconds."""
    first = before = service.read()
    since = time.monotonic()
    for _attempt in deadline.attempts(_POLL_SECONDS):
        state = service.read()
        if state.active == "failed" or state.restarts > first.restarts + _UNASKED_RESTARTS:
            raise Unproven(service.unit, release, state)
        if state != before or not state.runs(release):
            since, before = time.monotonic(), state
        elif time.monotonic() - since >= settle:
            return state
    raise Unproven(service.unit, release, state)


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    unit = validate.identifier(params["unit"], "unit")
    release = wanted_release(params["current"], params["release"])
    deadline = Deadline(validate.positive(params["timeout"], "timeout"))
    service = Service(unit, params["scope"], params["environment"], deadline)
    if params["run"] and not module.check_mode:
        Run.of(params["run"]).wait_for_orphan()
    before = service.settled(_TRANSITION_SECONDS)
    changed = not before.runs(release)
    if module.check_mode:
        after = replace(before, active="active", release=release)
    elif changed:
        with Run.of(params["run"]).change(_STEP, {"unit": unit, "release": release}) as journalled:
            service.restart()
            after = prove(service, release, params["settle"], deadline)
            journalled.outcome = {"service": after.shown()}
    else:
        after = prove(service, release, params["settle"], deadline)
    return {
        "changed": changed,
        "unit": unit,
        "release": release,
        "action": "restart" if changed else "none",
        "service": after.shown(),
        "diff": {"before": before.shown(), "after": after.shown()},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "scope": {"type": "str", "choices": ["system", "user"], "default": "system"},
            "current": {"type": "path"},
            "release": {"type": "path"},
            "timeout": {"type": "int", "default": 60},
            "settle": {"type": "float", "default": 1},
            "environment": {"type": "dict", "default": {}},
            "run": RUN_ARGUMENT,
        },
        required_one_of=[("current", "release")],
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
