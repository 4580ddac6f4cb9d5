#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_restart
short_description: Put a pm2 application on the release that a directory holds, and prove it
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - Restarts or reloads those processes of one pm2 application that do not run the wanted release yet, and succeeds
    only when every process is online, stable, and has the release as its working directory in C(/proc/<pid>/cwd).
  - What already runs the release is left alone, so a second run changes nothing, and a run that was killed is
    finished by the next one.
  - Where pm2 froze the path of another release when the application was started, a restart would bring that release
    back whatever the link says; the application is then deleted and started from its ecosystem file.
  - The saved process list is renewed where it would bring back another definition after a reboot, and is made
    readable by its owner alone.
  - pm2's daemon is asked over its RPC socket; where that speaks another protocol, over pm2's command line.
options:
  name:
    description: The application's exact name. pm2's selectors such as V(all) or numbers mean nothing here.
    type: str
    required: true
  pm2_home:
    description: The directory of the daemon (E(PM2_HOME)). It must belong to the user that the module runs as.
    type: path
    required: true
  pm2:
    description: Path of the C(pm2) command.
    type: path
    required: true
  ecosystem:
    description: The file that defines the application, for when it must be started anew.
    type: path
  current:
    description: The link to the live release. What it resolves to when the module starts is the wanted release.
    type: path
  release:
    description: The wanted release's directory. With O(current) also given, both must be the same.
    type: path
  method:
    description:
      - V(restart) restarts all processes at once, for when traffic is stopped.
      - V(reload) replaces one after the other without downtime, and stops at the first that does not come up.
    type: str
    choices: [restart, reload]
    default: restart
  timeout:
    description: Seconds after which the module gives up.
    type: int
    default: 60
  settle:
    description:
      - Seconds in which no process may restart by itself before the release counts as running.
      - The default is short because an application with C(wait_ready) says itself when it is up, and because the
        health gate that follows watches longer. One without it counts as up as soon as its process exists; it is
        watched for at least one second, which is what pm2 itself calls an unstable start.
    type: float
    default: 0.25
  environment:
    description: Variables for the C(pm2) command, such as a E(PATH) that has node in it.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Reads the daemon and reports what would be restarted; never starts a daemon.
    support: full
  diff_mode:
    description: Shows the release and the status of each process.
    support: full
  platform:
    description: Needs C(/proc) to prove which release a process runs.
    platforms: linux
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Run the release that current points to
  marketsage.rollback.pm2_restart:
    name: marketsage-backend
    pm2_home: /home/marketsage/.pm2
    pm2: /usr/local/bin/pm2
    ecosystem: /srv/backend/ecosystem.config.cjs
    current: /srv/backend/current
    release: "/srv/backend/releases/{{ target.release }}"
    run: "{{ rollback_run }}"
"""

RETURN = r"""
name:
  description: The application.
  returned: success
  type: str
release:
  description: The directory of the release that every process runs.
  returned: success
  type: str
action:
  description:
    - What was done, or would be in check mode. V(none), V(restart), V(reload), V(start) where pm2 did not know the
      application, V(replace) where pm2 had frozen another release's path and the application was deleted and started.
  returned: success
  type: str
acted_on:
  description: The ids that pm2 gave the processes that were restarted, reloaded or deleted.
  returned: success
  type: list
  elements: int
through:
  description: How the daemon was reached. V(socket), V(cli), or V(none) where no daemon runs.
  returned: success
  type: str
saved:
  description: Whether pm2's saved process list was renewed.
  returned: success
  type: bool
instances:
  description: The processes as read at the end. When the module fails, as they were last seen.
  returned: success, or when the release could not be proven
  type: list
  elements: dict
  contains:
    id:
      description: pm2's id of the process.
      type: int
    pid:
      description: The process id, 0 where there is no process.
      type: int
    status:
      description: What pm2 says of it.
      type: str
    release:
      description: Its working directory; null where that cannot be read.
      type: str
    restarts:
      description: How often pm2 has restarted it.
      type: int
error_log:
  description: The last lines of the failing process's error log, at most 10, without the secrets of its environment.
  returned: when the release could not be proven
  type: list
  elements: str
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
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.pm2 import App, Busy, Cli, Dump, Instance
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import wanted_release
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

# pm2 reports a process without wait_ready as online before its code has run; pm2's own min_uptime is one second.
_UNSTABLE_SECONDS = 1.0
_UNASKED_RESTARTS = 2
# Longest that pm2 is given to end what an earlier run or a deploy began before it is decided what is left to do.
_TRANSITION_SECONDS = 10
# A look costs the daemon several milliseconds of processor time, which the processes need that are starting.
_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 0.25
_STEP = "pm2_restart"


@dataclass(frozen=True)
class Wanted:
    """What the parameters ask for, validated."""

    name: str
    release: str
    ecosystem: str | None
    method: str
    settle: float


@dataclass(frozen=True)
class Plan:
    """What is to be done to the application's processes, and to pm2's saved list.

    `expected` is how many processes there must be at the end; None for as many as the ecosystem file asks for.
    """

    action: str
    instances: list[Instance]
    expected: int | None
    save: bool
    tighten: bool

    @property
    def changes(self) -> bool:
        return self.action != "none" or self.save or self.tighten

    @property
    def ids(self) -> list[int]:
        return [one.id for one in self.instances]


class Unproven(errors.Held):
    """The application does not run the wanted release; says what was seen and what its error log says."""

    def __init__(self, message: str, instances: list[Instance], failing: Instance | None = None) -> None:
        super().__init__(message, "Read the error log, then resume, or roll back to another release.")
        self._instances = instances
        self._error_log = failing.log_tail() if failing else []

    def result(self) -> dict[str, Any]:
        return {
            **super().result(),
            "instances": [one.shown() for one in self._instances],
            "error_log": self._error_log,
        }


def wanted_of(parameters: dict[str, Any]) -> Wanted:
    """Check every parameter before anything is asked or done."""
    home = validate.absolute_path(parameters["pm2_home"], "pm2_home")
    if not os.path.isdir(home):
        raise errors.BadInput(f"pm2_home: {home} is not a directory; give the PM2_HOME of the daemon")
    if os.stat(home).st_uid != os.geteuid():
        raise errors.BadInput(f"pm2_home: {home} belongs to another user; run as that user (become_user)")
    if not 0 <= parameters["settle"] < validate.positive(parameters["timeout"], "timeout"):
        raise errors.BadInput(f"settle: {parameters['settle']} is not between 0 and the timeout")
    _existing_file(parameters["pm2"], "pm2")
    if parameters["ecosystem"]:
        _existing_file(parameters["ecosystem"], "ecosystem")
    return Wanted(
        validate.identifier(parameters["name"], "name"),
        wanted_release(parameters["current"], parameters["release"]),
        parameters["ecosystem"],
        parameters["method"],
        parameters["settle"],
    )


def _existing_file(path: str, name: str) -> None:
    if not os.path.isfile(validate.absolute_path(path, name)):
        raise errors.BadInput(f"{name}: there is no file {path}")


def plan_of(wanted: Wanted, instances: list[Instance], dump: Dump) -> Plan:
    """Decide what is left to do, from what runs."""
    action, affected = _action(wanted, instances)
    starts = action in ("start", "replace")
    if starts and not wanted.ecosystem:
        raise errors.Refused(_why_ecosystem(wanted, instances), "Give the file as the parameter 'ecosystem'.")
    save = dump.exists() if starts else dump.brings_back_another(instances)
    return Plan(action, affected, None if starts else len(instances), save, bool(dump.readable_by_others()))


def _action(wanted: Wanted, instances: list[Instance]) -> tuple[str, list[Instance]]:
    if not instances:
        return "start", []
    if not all(one.leads_to(wanted.release) for one in instances):
        return "replace", instances
    left = [one for one in instances if not one.runs(wanted.release)]
    return (wanted.method if left else "none"), left


def _why_ecosystem(wanted: Wanted, instances: list[Instance]) -> str:
    if not instances:
        return f"name: pm2 runs no application called {wanted.name}; starting it needs its ecosystem file"
    return (
        f"ecosystem: pm2 froze {os.path.realpath(instances[0].cwd)} for {wanted.name}, a restart would run that; "
        f"running {wanted.release} needs delete and start from an ecosystem file"
    )


def apply(app: App, plan: Plan, wanted: Wanted) -> None:
    if plan.action == "restart":
        _when_not_busy(app, wanted, plan.instances, app.restart)
    elif plan.action == "reload":
        for instance in plan.instances:
            _reload(app, instance, wanted)
    elif plan.action == "replace":
        app.delete(plan.instances)
    if plan.action in ("start", "replace"):
        app.start(str(wanted.ecosystem))


def _reload(app: App, instance: Instance, wanted: Wanted) -> None:
    """Replace one process, and go no further if the new one does not run: the others still serve."""
    _when_not_busy(app, wanted, [instance], app.reload)
    for _attempt in app.deadline.attempts(_POLL_SECONDS, _LONGEST_POLL_SECONDS):
        instances = app.instances()
        new = next((one for one in instances if one.id == instance.id), None)
        if new and new.runs(wanted.release):
            return
        if new is None or new.restarts > instance.restarts + 1 + _UNASKED_RESTARTS or new.status == "errored":
            break
    raise Unproven(f"{wanted.name}: process {instance.id} did not come up on {wanted.release}", instances, new)


def _when_not_busy(
    app: App, wanted: Wanted, instances: list[Instance], request: Callable[[list[Instance]], None]
) -> None:
    """Make a request again while pm2 says that an earlier one has not ended, for those that still need it."""
    ids = [one.id for one in instances]
    for _attempt in app.deadline.attempts(0.1, 0.5):
        try:
            return request(instances)
        except Busy as error:
            busy = error
        present = app.settled(wanted.release, _TRANSITION_SECONDS)
        instances = [one for one in present if one.id in ids and not one.runs(wanted.release)]
        if not instances:
            return None
    raise busy


def prove(app: App, wanted: Wanted, expected: int | None) -> list[Instance]:
    """Return the processes once all are online, on the release, and have stopped restarting; raise otherwise."""
    seen: list[Instance] = []
    first: dict[int, int] = {}
    quiet_since = 0.0
    for _attempt in app.deadline.attempts(_POLL_SECONDS, _LONGEST_POLL_SECONDS):
        before, seen = seen, app.instances()
        first = first or _restarts(seen)
        _refuse_hopeless(wanted, seen, before, first)
        if not _all_run(wanted, seen, expected) or _processes(seen) != _processes(before):
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= _settle_seconds(wanted, seen):
            return seen
    running = sum(one.runs(wanted.release) for one in seen)
    failing = next((one for one in seen if not one.runs(wanted.release)), None)
    count = f"{running} of {expected or _configured(seen)}"
    raise Unproven(f"{wanted.name}: {count} processes run {wanted.release}, {len(seen)} exist", seen, failing)


def _restarts(instances: list[Instance]) -> dict[int, int]:
    return {one.id: one.restarts for one in instances}


def _processes(instances: list[Instance]) -> list[tuple[int, int, int]]:
    return [(one.id, one.pid, one.restarts) for one in instances]


def _all_run(wanted: Wanted, instances: list[Instance], expected: int | None) -> bool:
    return len(instances) == (expected or _configured(instances)) and all(one.runs(wanted.release) for one in instances)


def _configured(instances: list[Instance]) -> int:
    """How many processes the ecosystem file asked for."""
    return max((one.configured for one in instances), default=1)


def _settle_seconds(wanted: Wanted, instances: list[Instance]) -> float:
    ready = all(one.waits_ready for one in instances)
    return wanted.settle if ready else max(wanted.settle, _UNSTABLE_SECONDS)


def _refuse_hopeless(wanted: Wanted, seen: list[Instance], before: list[Instance], first: dict[int, int]) -> None:
    """Raise for what waiting will not mend."""
    for one in seen:
        # What is seen once may be a process that died a moment ago, before pm2 noticed or started it again.
        lasting = (one.pid, one.status, one.release) in [(was.pid, was.status, was.release) for was in before]
        unasked = one.restarts - first.get(one.id, one.restarts)
        if one.status == "errored" or (one.status == "stopped" and lasting):
            raise Unproven(f"{wanted.name}: process {one.id} is {one.status}", seen, one)
        if unasked > _UNASKED_RESTARTS:
            raise Unproven(f"{wanted.name}: process {one.id} restarted {unasked} times by itself", seen, one)
        if one.status == "online" and not one.young and lasting and one.release != wanted.release:
            _refuse_other_release(wanted, one, seen)


def _refuse_other_release(wanted: Wanted, one: Instance, seen: list[Instance]) -> None:
    if one.release is None:
        raise errors.Unknown(f"{wanted.name}: /proc/{one.pid}/cwd cannot be read. Does process {one.pid} run "
                             f"in {wanted.release}?")
    raise Unproven(f"{wanted.name}: process {one.id} runs {one.release}, not {wanted.release}", seen, one)


def save(app: App, instances: list[Instance]) -> bool:
    """Renew pm2's saved list where it would bring back another definition, and read it back."""
    renew = app.dump.brings_back_another(instances)
    if renew:
        app.cli.save(app.deadline)
    app.dump.tighten()
    if app.dump.brings_back_another(instances):
        raise errors.Held(f"pm2 save succeeded, but {app.home}/dump.pm2 still holds another definition of {app.name}")
    return renew


def change(app: App, wanted: Wanted, plan: Plan, run: Run) -> tuple[list[Instance], bool]:
    """Do what the plan says and return the processes as proven, and whether pm2's list was saved."""
    intent = {"application": wanted.name, "release": wanted.release, "action": plan.action, "ids": plan.ids}
    with run.change(_STEP, intent) as journalled:
        apply(app, plan, wanted)
        instances = prove(app, wanted, plan.expected)
        saved = save(app, instances)
        journalled.outcome = {"instances": [one.shown() for one in instances], "saved": saved}
    return instances, saved


def predicted(plan: Plan, wanted: Wanted, before: list[Instance]) -> list[Instance]:
    """The processes as they would be after the plan; their ids and pids are the present ones."""
    affected = plan.ids
    return [replace(one, status="online", release=wanted.release) if one.id in affected else one for one in before]


def _states(instances: list[Instance]) -> dict[str, dict[str, Any]]:
    return {str(one.id): {"release": one.release, "status": one.status} for one in instances}


def work(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    wanted = wanted_of(parameters)
    cli = Cli(parameters["pm2"], parameters["pm2_home"], parameters["environment"])
    app = App(wanted.name, parameters["pm2_home"], cli, Deadline(parameters["timeout"]))
    if parameters["run"] and not module.check_mode:
        run = Run.of(parameters["run"])
        run.wait_for_orphan()
        if run.has_begun(_STEP):
            # The daemon has taken up what it was sent last, by a sender that was killed, before it answers this.
            app.instances()
    before = app.settled(wanted.release, _TRANSITION_SECONDS)
    plan = plan_of(wanted, before, app.dump)
    if module.check_mode:
        after, saved = predicted(plan, wanted, before), plan.save
    elif plan.changes:
        after, saved = change(app, wanted, plan, Run.of(parameters["run"]))
    else:
        after, saved = prove(app, wanted, plan.expected), False
    return {
        "changed": plan.changes,
        "name": wanted.name,
        "release": wanted.release,
        "action": plan.action,
        "acted_on": plan.ids,
        "through": app.through,
        "saved": saved,
        "instances": [one.shown() for one in after],
        "diff": {"before": _states(before), "after": _states(after)},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "pm2_home": {"type": "path", "required": True},
            "pm2": {"type": "path", "required": True},
            "ecosystem": {"type": "path"},
            "current": {"type": "path"},
            "release": {"type": "path"},
            "method": {"type": "str", "choices": ["restart", "reload"], "default": "restart"},
            "timeout": {"type": "int", "default": 60},
            "settle": {"type": "float", "default": 0.25},
            "environment": {"type": "dict", "default": {}},
            "run": RUN_ARGUMENT,
        },
        required_one_of=[("current", "release")],
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
