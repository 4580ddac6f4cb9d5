# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_plan
short_description: Resolve what a rollback would change
version_added: 0.1.0
description:
  - Chooses for each service the release to go back to, once, from what its hosts reported, from the history of what
    was live and from what is known to be good or bad. The result is the plan that every later step takes.
  - A service whose live release is marked good stays as it is unless O(to) names another.
  - A release marked bad is never chosen by itself, nor is one that was never live or that some host cannot go back to.
  - Runs on the controller and changes nothing. Given the O(run_id) of a run that exists, it returns its pinned plan.
options:
  environment:
    description: The name of the environment.
    type: str
    required: true
  procedure:
    description: The name of the procedure.
    type: str
    required: true
  services:
    description: The services to roll back, in this order.
    type: list
    elements: str
    required: true
  severity:
    description: V(P0), V(P1), V(P2) or V(P3).
    type: str
    required: true
  reason:
    description: Why, in one line.
    type: str
    required: true
  to:
    description:
      - The release to go back to, by its id, commit, tag or deployment, instead of the one that would be chosen.
      - For several services a dictionary with the service as key.
    type: raw
  without:
    description:
      - Hosts that are left out, because they cannot be reached or must not be touched. They get no requests and keep
        the release that they have; a later run takes them along.
    type: list
    elements: str
    default: []
  back:
    description:
      - How many releases back, instead of the last good one; those marked bad are not counted.
      - A service whose live release is marked good stays as it is, so that running it twice does not go back twice.
    type: int
  abort:
    description:
      - An open run to go back from, to where it started. Its place is taken by this one.
      - Services, severity and reason are those of that run where they are not said.
    type: str
  undo:
    description: A run that is done, to go forward again from. As for O(abort), but nothing is marked bad.
    type: str
  anyway:
    description:
      - Roll back although the severity's policy prefers to fix forward, or although the component is not broken.
    type: bool
    default: false
  run_id:
    description: A run whose pinned plan is wanted, if there is one of that id.
    type: str
  instead_of:
    description: An interrupted or held run whose place this one takes, because its target turned out to be wrong.
    type: str
  expected_hash:
    description: The hash of the plan that was agreed to; any other plan is refused.
    type: str
  policy:
    description: The decision matrix, C(playbooks/group_vars/all/policy.yml).
    type: dict
    required: true
  catalogue:
    description: The services, C(playbooks/group_vars/all/services.yml).
    type: dict
    required: true
  hosts:
    description: The hosts of each service.
    type: dict
    required: true
  balancers:
    description: What M(marketsage.rollback.lb_maintenance) read on each host that can show the maintenance page.
    type: dict
    required: true
  rolling:
    description:
      - Whether the procedure can roll hosts back one after the other, without the maintenance page, where the policy
        wants that for the severity.
      - The page is shown nevertheless where the schema goes back too, or where hosts cannot be drained.
    type: bool
    default: false
  servers:
    description: The name that each host has at the balancers, where it is another one.
    type: dict
    default: {}
  reports:
    description:
      - What M(marketsage.rollback.release) and M(marketsage.rollback.railway_rollback) read, by host, for a component
        with the C(compositions) of M(marketsage.rollback.rollback_branch).
    type: dict
    required: true
  component:
    description:
      - Roll back only this component of its service; everything else stays as it is.
      - Refused where its pre-check shows that it is not broken, unless O(anyway), and where what it depends on is down.
    type: str
  components:
    description: The components, C(playbooks/group_vars/all/services.yml).
    type: dict
    default: {}
  found:
    description:
      - What M(marketsage.rollback.health_gate) returned before anything was changed, C(component) for the component's
        own checks, C(depends_on) by name for those of what it depends on.
    type: dict
    default: {}
  named:
    description: Build and deploy what C(named) in each of O(reports) says, whether it was live before or not.
    type: bool
    default: false
  schema_verdicts:
    description: What M(marketsage.rollback.prisma_migrate) found, by release id.
    type: dict
  archives:
    description: What earlier schema rollbacks have set aside, as M(marketsage.rollback.prisma_migrate) found it.
    type: list
    elements: dict
    default: []
  archive_of:
    description: Bring back what this run has set aside, instead of rolling something back.
    type: str
  schema_too:
    description:
      - Take the database's schema back to what the release knows although the release could live with it as it is.
      - Code that needs what goes back does not stay; it goes back with the schema.
    type: bool
    default: false
  session_scope:
    description: Which sessions are ended; without it none are. An empty word does not narrow the scope.
    type: dict
    suboptions:
      pattern:
        description: Names of the sessions' keys.
        type: str
        required: true
      user:
        description: Only sessions of this user.
        type: str
        required: true
      created_before:
        description: Only sessions created before this time.
        type: str
        required: true
      unknown:
        description: What becomes of sessions that do not tell whether they are in scope.
        type: str
        choices: [keep, end]
        required: true
      flush_other_keys:
        description: How many other keys die, because the whole database is emptied.
        type: str
        required: true
  session_stores:
    description: What M(marketsage.rollback.redis_sessions) counted in check mode, by host.
    type: dict
    default: {}
  signed_sessions:
    description:
      - Sessions that are kept nowhere, with C(sessions), the C(secret) that signs them and the checklist of its
        C(rotation). The plan tells that they are not ended.
    type: list
    elements: dict
    default: []
  recovery:
    description:
      - What M(marketsage.rollback.postgres_recovery) compared, where the data goes back to a backup. The releases of
        O(services) stay then, but their traffic is stopped, and they are proved again.
      - A database that was restored from the same backup already stays as it is, unless O(anyway).
    type: dict
  accept_loss:
    description: The agreement to lose rows by that, as RV(refusal) proposes it.
    type: str
    default: ""
  takes_backup:
    description: Whether a backup of the database is taken.
    type: bool
    default: false
  point_in_time:
    description: The time (ISO 8601, with its zone) of which it is taken, instead of now.
    type: str
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
  - marketsage.rollback.controller.reads
"""

EXAMPLES = r"""
- name: Resolve the plan
  marketsage.rollback.rollback_plan:
    environment: production
    procedure: backend
    services: [backend]
    severity: P0
    reason: health answers 500
    control_dir: /var/lib/marketsage.rollback/production
    policy: "{{ rollback_policy }}"
    catalogue: "{{ rollback_catalogue }}"
    hosts: {backend: "{{ groups['backend'] }}"}
    balancers: "{{ maintenance }}"
    reports: "{{ reports }}"
    schema_verdicts: "{{ verdicts }}"
  register: resolved
"""

RETURN = r"""
run_id:
  description: The run to go on with, an interrupted one that the same request began included; empty for a new one.
  type: str
  returned: success
plan:
  description: The plan. Equal states give equal plans, to the letter.
  type: dict
  returned: success
hash:
  description: The sha256 of the plan.
  type: str
  returned: success
pinned:
  description: Whether it is the plan of a run that was begun earlier.
  type: bool
  returned: success
first:
  description: Hosts that serve nobody at the moment, for the O(marketsage.rollback.rollback_run#module:first) of a run.
  type: list
  elements: str
  returned: success
drained:
  description: Planned hosts that a balancer sends no requests to because an earlier run drained them.
  type: list
  elements: str
  returned: success
summary:
  description: The plan in lines for a human.
  type: list
  elements: str
  returned: success
estimates:
  description: Seconds that each step took in the newest runs of the procedure, the median, by the step's name.
  type: dict
  returned: success
schema_on:
  description: The hosts on which it is worked out how the schema goes back; none where the plan is pinned already.
  type: list
  elements: str
  returned: success
refusal:
  description: Why the plan is not begun (C(msg)) and what to say so that it is (C(advice)); null where it may be begun.
  type: dict
  returned: success
"""
