# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_freeze
short_description: Hold deploys back, let them go on, or ask
version_added: 0.1.0
description:
  - A deploy job asks with O(state=asked) before it ships anything; it fails with 3 while deploys are frozen.
  - An open run freezes them too, until it has ended and for as long after it as the policy says.
  - The freeze is recorded in the name of who is logged in.
options:
  state:
    description: V(frozen) to hold deploys back, V(lifted) to let them go on, V(asked) to fail where they are frozen.
    type: str
    choices: [frozen, lifted, asked]
    required: true
  reason:
    description: Why, in one line. Required with O(state=frozen).
    type: str
    default: ""
  seconds:
    description: For how long. Required with O(state=frozen).
    type: int
  longest:
    description: The most that O(seconds) may be.
    type: int
    default: 86400
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: The freeze is shown by the status.
    support: none
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
"""

EXAMPLES = r"""
- name: Ship nothing for an hour
  marketsage.rollback.rollback_freeze:
    state: frozen
    control_dir: /var/lib/marketsage.rollback/production
    reason: the database is being looked at
    seconds: 3600
"""

RETURN = r"""
run:
  description: What later changes of the same operation are journalled under, with C(id) and C(fence); null for none.
  type: dict
  returned: success
"""
