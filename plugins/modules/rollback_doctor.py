# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_doctor
short_description: Say whether everything that a rollback needs is there
version_added: 0.1.0
description:
  - A release to go back to at once on every host, readable database and balancers, clocks, disks, secrets, the means
    to check approvals. Nothing of it needs the internet.
  - Runs on the controller.
options:
  catalogue:
    description: The services, C(playbooks/group_vars/all/services.yml).
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
  balancers:
    description: What M(marketsage.rollback.lb_maintenance) read, by host.
    type: dict
    default: {}
  schema_verdicts:
    description: What M(marketsage.rollback.prisma_migrate) found, by release id.
    type: dict
    default: {}
  facts:
    description: For each host C(skew), the seconds its clock is ahead of this one, and C(free), its free bytes.
    type: dict
    default: {}
  secret_files:
    description: Names and the private files that hold the secrets.
    type: dict
    default: {}
  allowed_signers:
    description: The public keys that approvals are checked against.
    type: path
  longest_skew:
    description: By how many seconds a clock may differ.
    type: int
    default: 5
  least_free:
    description: How many bytes must be free.
    type: int
    default: 1073741824
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
  - marketsage.rollback.controller.reads
"""

EXAMPLES = r"""
- name: Examine what a rollback needs
  marketsage.rollback.rollback_doctor:
    control_dir: /var/lib/marketsage.rollback/production
    catalogue: "{{ rollback_catalogue }}"
    hosts: "{{ groups }}"
    reports: "{{ reports }}"
"""

RETURN = r"""
examined:
  description: What was examined, each with C(name), C(status) (V(passed) or V(failed)) and C(evidence).
  type: list
  elements: dict
  returned: success
"""
