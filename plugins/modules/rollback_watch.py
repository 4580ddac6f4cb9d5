# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_watch
short_description: Watch how the system does after a rollback, and judge it
version_added: 0.1.0
description:
  - Compares what Prometheus measures when traffic is back with the SLA and with as long a time before the bad release
    went live. A measure is better, worse, or unknown; it is never better where its samples are missing or not fresh.
  - It is worse where its median, or every sample of the newest window, is out of its bounds. That is told on every
    channel that heard of the run, and fails the task with exit code 5. What cannot be told fails it with 30.
  - The verdict is kept with the run as C(watch.json), with the answers to the success criteria.
  - Runs on the controller.
options:
  state:
    description:
      - V(begun) begins a watch and measures how it was before.
      - V(looked) measures what is known now. To be repeated until RV(over).
      - V(judged) makes the verdict, keeps it and tells it.
    type: str
    choices: [begun, looked, judged]
    required: true
  run_id:
    description: The run, which must have ended.
    type: str
    required: true
  prometheus_url:
    description: Prometheus' address. Without it nothing can be told.
    type: str
    default: ""
  seconds:
    description: For how long. Required with O(state=begun).
    type: int
  settings:
    description: What is measured, C(playbooks/group_vars/all/watch.yml). Required with O(state=begun).
    type: dict
  reports:
    description:
      - What M(marketsage.rollback.release) and M(marketsage.rollback.railway_rollback) read, by host. It tells since
        when the bad release was live.
    type: dict
    default: {}
  coverage:
    description: Which part of the time must have been measured, 0 to 1. Required with O(state=looked).
    type: float
  watch:
    description: The watch as it was returned last. Required with O(state=looked) and O(state=judged).
    type: dict
  health:
    description: The results of M(marketsage.rollback.health_gate) at the end of the watch, asked from outside.
    type: list
    elements: dict
    default: []
  users:
    description: The same of the paths that users take.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: In check mode nothing is written or sent.
    support: full
  diff_mode:
    description: It has no state to show.
    support: none
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
"""

EXAMPLES = r"""
- name: Begin the watch
  marketsage.rollback.rollback_watch:
    state: begun
    control_dir: /var/lib/marketsage.rollback/production
    run_id: 20261124T031500Z-backend-3f9a
    prometheus_url: https://prometheus.example.com
    seconds: 1800
    settings: "{{ rollback_watch }}"
    reports: "{{ rollback_reports }}"
  register: watch_begun

- name: Watch
  marketsage.rollback.rollback_watch:
    state: looked
    control_dir: /var/lib/marketsage.rollback/production
    run_id: 20261124T031500Z-backend-3f9a
    prometheus_url: https://prometheus.example.com
    coverage: 0.9
    watch: "{{ watch_begun.watch }}"
  register: watch_looked
  until: watch_looked.over
  delay: 10
  retries: 200
"""

RETURN = r"""
watch:
  description: What is watched, since when, until when, and each measure with its values, bounds and verdict.
  type: dict
  returned: always
told:
  description: The same in lines for a human; with O(state=judged) the success criteria.
  type: list
  elements: str
  returned: always
over:
  description: Whether the time is up, something is worse, or there is nothing to wait for.
  type: bool
  returned: when O(state=looked)
verdict:
  description: V(better), V(worse) or V(unknown).
  type: str
  returned: when O(state=judged)
criteria:
  description: The success criteria, each with C(name), C(answer) (V(yes), V(no) or V(unknown)) and C(evidence).
  type: list
  elements: dict
  returned: when O(state=judged)
"""
