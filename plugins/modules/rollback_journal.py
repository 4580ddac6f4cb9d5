# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_journal
short_description: Keep a host's journal with the run
version_added: 0.1.0
description:
  - Copies what the run journalled on a host into O(control_dir), by one command over the host's connection.
  - A host on which the run changed nothing has no journal; nothing is kept then.
options:
  run_id:
    description: The run.
    type: str
    required: true
  state_dir:
    description: Where the host keeps its journals, a path of the host.
    type: str
    required: true
attributes:
  action:
    description: Reads on the host, writes on the controller.
    support: full
  check_mode:
    description: In check mode nothing is kept.
    support: full
  diff_mode:
    description: Nothing that a run works on is changed.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller.record
"""

EXAMPLES = r"""
- name: Keep the journal with the run
  marketsage.rollback.rollback_journal:
    control_dir: /var/lib/marketsage.rollback/production
    run_id: 20261124T031500Z-backend-3f9a
    state_dir: /var/lib/marketsage.rollback
"""

RETURN = r"""
journal:
  description: Where it is kept; null where the host has none.
  type: str
  returned: success
"""
