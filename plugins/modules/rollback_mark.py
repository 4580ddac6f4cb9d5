# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_mark
short_description: Mark a release good or bad
version_added: 0.1.0
description:
  - A release marked bad is never chosen by itself; one marked good is chosen first, and stays where it is live.
  - The mark is recorded in the name of who is logged in.
options:
  release:
    description: The release, by its id, commit, tag or deployment.
    type: str
    required: true
  mark:
    description: V(good) or V(bad).
    type: str
    required: true
  reason:
    description: Why, in one line.
    type: str
    required: true
  service:
    description: The service, where releases of several have that name.
    type: str
    default: ""
  hosts:
    description: The hosts of each service.
    type: dict
    required: true
  reports:
    description: What M(marketsage.rollback.release) and M(marketsage.rollback.railway_rollback) read, by host.
    type: dict
    required: true
attributes:
  check_mode:
    description: Says whether the mark would change.
    support: full
  diff_mode:
    description: Shows the mark before and after.
    support: full
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
"""

EXAMPLES = r"""
- name: Never choose it again
  marketsage.rollback.rollback_mark:
    control_dir: /var/lib/marketsage.rollback/production
    release: v1.2.0
    mark: bad
    reason: loses every tenth order
    hosts: {backend: "{{ groups['backend'] }}"}
    reports: "{{ reports }}"
"""

RETURN = r"""
service:
  description: The service.
  type: str
  returned: success
commit:
  description: The commit that is marked.
  type: str
  returned: success
mark:
  description: What is known of it now, with C(by), C(reason) and C(time); null in check mode where it had no mark.
  type: dict
  returned: success
"""
