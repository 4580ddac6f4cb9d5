# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_assess
short_description: Say how bad it is, why, and what to type
version_added: 0.1.0
description:
  - Compares what Prometheus measured and which checks failed with the triggers, and gives the severity they mean.
  - The last deploy is a likely cause where the rise began soon after it. What cannot be measured is said to be unknown.
  - Runs on the controller and changes nothing.
options:
  prometheus_url:
    description: Prometheus' address. Without it the checks alone are judged.
    type: str
    default: ""
  triggers:
    description: The triggers, C(playbooks/group_vars/all/triggers.yml).
    type: dict
    required: true
  policy:
    description: The decision matrix, C(playbooks/group_vars/all/policy.yml).
    type: dict
    required: true
  hosts:
    description: The hosts of each service.
    type: dict
    required: true
  reports:
    description: What M(marketsage.rollback.release) and M(marketsage.rollback.railway_rollback) read, by host.
    type: dict
    required: true
  checklists:
    description: The checklists of each service, and as C(SERVICE_gate) those of its lines that need no other service.
    type: dict
    required: true
  results:
    description: The results of M(marketsage.rollback.health_gate), asked from outside.
    type: list
    elements: dict
    default: []
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.reads
"""

EXAMPLES = r"""
- name: Compare with the triggers
  marketsage.rollback.rollback_assess:
    prometheus_url: http://127.0.0.1:9090
    triggers: "{{ rollback_triggers }}"
    policy: "{{ rollback_policy }}"
    hosts: {backend: "{{ groups['backend'] }}"}
    reports: "{{ reports }}"
    checklists: "{{ rollback_checklists }}"
    results: "{{ health.results }}"
"""

RETURN = r"""
asked_prometheus:
  description: Whether there was a Prometheus to ask.
  type: bool
  returned: success
measured:
  description:
    - Each trigger with its value, limit, whether that is a bound from above or below, whether it is exceeded (null when
      not known) and since when.
  type: list
  elements: dict
  returned: success
failing:
  description: The checks that did not pass, each with the severity that this means.
  type: list
  elements: dict
  returned: success
severity:
  description: The worst of them; null where nothing is exceeded.
  type: str
  returned: success
since:
  description: When it began, in seconds since 1970; null where that is not known.
  type: float
  returned: success
deploys:
  description: What went live of the services that the failing checks tell of and when, newest first.
  type: list
  elements: dict
  returned: success
cause:
  description: The deploys that are a likely cause.
  type: list
  elements: dict
  returned: success
action:
  description: What the decision matrix says.
  type: str
  returned: success
procedure:
  description: The procedure that takes back what is meant; null where nothing is to be done.
  type: str
  returned: success
reason:
  description: Why, the same as long as the same is bad; null where nothing is to be done.
  type: str
  returned: success
command:
  description: What to type; null where nothing is to be done.
  type: str
  returned: success
"""
