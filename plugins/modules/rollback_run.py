# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_run
short_description: Open, gate and close a run on the control host
version_added: 0.1.0
description:
  - At most one run is open in an environment. Opening one takes a lock that does not expire by time and a fencing
    number that every host remembers, so that a run which was overtaken can change nothing more.
  - An interrupted run is opened again, with its pinned plan and a new fencing number, by its O(run_id) or by the same
    operator asking for the same procedure, severity and reason.
  - A finished run stays finished; opening it again changes nothing.
  - Runs on the controller.
options:
  state:
    description:
      - V(status) only reads who holds the lock and what is marked good and bad.
      - V(opened) takes the lock and pins the plan.
      - V(next) fails before O(batch) when more hosts of the batches before it failed than the plan lets.
      - V(gated) fails unless every planned host proved the planned release.
      - V(closed) does so too, then marks the releases good and bad, writes the outcome and frees the lock.
    type: str
    choices: [status, opened, next, gated, closed]
    required: true
  control_dir:
    description: The control host's record of the environment.
    type: path
    required: true
  plan:
    description: The plan. Required with O(state=opened).
    type: dict
  run_id:
    description: The run to open again, or the id of a new one.
    type: str
  run:
    description: The C(id) and C(fence) of the open run. Required but with O(state=status) and O(state=opened).
    type: dict
    suboptions:
      id:
        description: The run.
        type: str
        required: true
      fence:
        description: Its fencing number.
        type: int
        required: true
  reports:
    description: What M(marketsage.rollback.health_gate) returned on each planned host.
    type: dict
  batch:
    description: The hosts that are to be rolled back next. Required with O(state=next).
    type: list
    elements: str
attributes:
  action:
    description: Runs on the controller.
    support: full
  check_mode:
    description: In check mode nothing is locked or written.
    support: full
  diff_mode:
    description: The plan is what is to be looked at.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
author:
  - MarketSage (@marketsage)
"""

EXAMPLES = r"""
- name: Pin the plan and take the lock
  marketsage.rollback.rollback_run:
    state: opened
    control_dir: /var/lib/marketsage.rollback/production
    plan: "{{ resolved.plan }}"
  register: opened

- name: Release the lock
  marketsage.rollback.rollback_run:
    state: closed
    control_dir: /var/lib/marketsage.rollback/production
    run: "{{ opened.run }}"
    reports: "{{ reports }}"
"""

RETURN = r"""
holder:
  description: The record of the open run (run, fence, owner, host, severity, reason, since); null where none is open.
  type: dict
  returned: when O(state=status)
marks:
  description: What is known to be good or bad, by service and commit.
  type: dict
  returned: when O(state=status)
status:
  description: V(new), V(resumed), V(finished) (it had ended before) or V(nothing) (the plan changes nothing).
  type: str
  returned: when O(state=opened)
run:
  description: The C(id) and C(fence) of the open run; null where none was opened.
  type: dict
  returned: when O(state=opened)
owner:
  description: The operator who opened it.
  type: str
  returned: when a run was opened
plan:
  description: The pinned plan.
  type: dict
  returned: when O(state=opened), unless it is finished
hosts:
  description: The hosts that the plan changes, each with the groups (C(planned_<service>)) that later plays name.
  type: list
  elements: dict
  returned: when a run was opened
batches:
  description: How many hosts are rolled back at a time where that is done without the maintenance page.
  type: list
  elements: int
  returned: when a run was opened
passed:
  description: The hosts that proved the planned release.
  type: list
  elements: str
  returned: when O(state=gated)
outcome:
  description: How the run ended.
  type: dict
  returned: when it has ended
  contains:
    state:
      description: The end state.
      type: str
    exit_code:
      description: What C(ansible-playbook) and C(rollback) exit with.
      type: int
    run:
      description: The run.
      type: str
    opened:
      description: When it was first opened, ISO 8601.
      type: str
    closed:
      description: When it was closed, ISO 8601.
      type: str
"""
