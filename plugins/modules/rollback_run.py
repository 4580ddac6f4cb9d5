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
    operator asking for the same procedure, severity and reason. Somebody else takes it over, for a stated reason.
  - Where the plan's severity asks for an approval, one is looked for that somebody else signed with C(ssh-keygen) over
    the hash of exactly this plan. It is used up by the run. A run that goes on needs no other.
  - Deploys are frozen while a run is open, and for O(freeze_for) seconds after it.
  - The operator is who is logged in, never a parameter.
  - A finished run stays finished; opening it again changes nothing.
  - Runs on the controller.
options:
  state:
    description:
      - V(status) only reads who holds the lock and what is marked good and bad.
      - V(opened) takes the lock and pins the plan.
      - V(next) fails before O(batch) when more of the O(hosts) before it failed than the plan lets.
      - V(gated) fails unless every planned host proved the planned release.
      - V(withdrawn) marks the planned release bad, once what was live before was put back; it always fails, for the run
        is held.
      - V(closed) fails like V(gated), and otherwise marks the releases good and bad, writes the outcome and frees
        the lock. A run that took another one back marks nothing bad.
    type: str
    choices: [status, opened, next, gated, withdrawn, closed]
    required: true
  plan:
    description: The plan. Required with O(state=opened).
    type: dict
  checklists:
    description:
      - The lines that are gone through in the run, by the name of their list. With O(state=opened) they are looked at,
        so that one which cannot be asked is told before users meet the maintenance page.
    type: dict
    default: {}
  addresses:
    description:
      - Where URLs of the lines begin that begin with V(<name>), by that name, asked as users ask. With
        O(state=opened) each line's must be known.
    type: dict
    default: {}
  gate_addresses:
    description: The same for the gate that goes through a list, by the name of the list.
    type: dict
    default: {}
  secret_files:
    description: Private files on this host that the lines need, by name. With O(state=opened) they must be readable.
    type: dict
    default: {}
  run_id:
    description: The run to open again, or the id of a new one.
    type: str
  takeover:
    description: Why the open run O(run_id) of somebody else is gone on with, in one line.
    type: str
  propose:
    description:
      - Whether a new run is not opened, but its plan kept for C(rollback approve) and for whoever carries it out.
      - It is changed where the plan was not proposed within O(approval_valid_for) before.
    type: bool
    default: false
  approval:
    description:
      - A file that says which plan is approved, by whom and until when; its signature is beside it in C(.sig).
      - Without it the one is taken that was left for this plan in O(control_dir), if there is one.
    type: path
  approval_valid_for:
    description: For how many seconds an approval may hold at most.
    type: int
    default: 3600
  people:
    description: Who is who, by login name; the C(role) decides who may approve.
    type: dict
    default: {}
  allowed_signers:
    description: The people's public keys, as C(ssh-keygen) takes them. Each person has keys of their own.
    type: path
  revoked_signers:
    description: Public keys that count no more, as C(ssh-keygen -r) takes them.
    type: path
  freeze_for:
    description: For how many seconds deploys stay frozen after the run. For O(state=closed).
    type: int
    default: 0
  undone:
    description: Side duties that could not be done; the run ends with 10 then. For O(state=closed).
    type: list
    elements: str
    default: []
  notes:
    description: What is worth knowing of how it ended, and decides nothing. For O(state=closed).
    type: list
    elements: str
    default: []
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
    description:
      - What M(marketsage.rollback.health_gate) returned on each planned host; with O(state=withdrawn), of those gates
        alone that did not open.
    type: dict
  hosts:
    description: The hosts that are rolled back, in their order. Required with O(state=next).
    type: list
    elements: str
  batch:
    description: Those of O(hosts) that are to be rolled back next. Required with O(state=next).
    type: list
    elements: str
  first:
    description: With O(state=opened), the hosts that serve nobody at the moment, so that they are rolled back first.
    type: list
    elements: str
    default: []
  refusal:
    description: Why a new run is not opened, as M(marketsage.rollback.rollback_plan) returned it.
    type: dict
  given_up:
    description: Whether the run is closed because the operator gave it up, so that everything is as it was.
    type: bool
    default: false
attributes:
  check_mode:
    description: In check mode nothing is locked or written.
    support: full
  diff_mode:
    description: The plan is what is to be looked at.
    support: none
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
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
frozen:
  description: What holds deploys back now, each with C(by), C(reason), C(since) and C(until).
  type: list
  elements: dict
  returned: when O(state=status)
runs:
  description: Every run on record, newest first.
  type: list
  elements: str
  returned: when O(state=status)
status:
  description: V(new), V(resumed), V(finished) (it had ended before), V(proposed) or V(nothing) (the plan
    changes nothing).
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
approved_by:
  description: Who approved the plan; null where nobody did.
  type: str
  returned: when a run was opened
directory:
  description: Where the run's record is.
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
batch:
  description: Which of the batches is next, with C(hosts), C(number) and C(of), how many there are.
  type: dict
  returned: when O(state=next)
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
    proof:
      description: What its success was decided by.
      type: str
    owner:
      description: Who ended it.
      type: str
    approval:
      description: Whether one was needed (C(need)), whose (C(roles)), and who gave it (C(given_by)).
      type: dict
    undone:
      description: Side duties that are still to be done.
      type: list
      elements: str
    notes:
      description: What is worth knowing of how it ended.
      type: list
      elements: str
    journals:
      description: The newest hash of each host's journal, which stands for all before it.
      type: dict
    opened:
      description: When it was first opened, ISO 8601.
      type: str
    closed:
      description: When it was closed, ISO 8601.
      type: str
"""
