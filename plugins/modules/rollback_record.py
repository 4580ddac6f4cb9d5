# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_record
short_description: Read the record of all runs
version_added: 0.1.0
description:
  - What was run, by whom, who approved it, how long each step took and how it ended.
  - V(audited) verifies it. Each journal is a chain of hashes, the journals that were collected have the heads that the
    outcome names, and plan, approval and outcome are those that the journal speaks of.
options:
  state:
    description:
      - V(listed) for all runs in a few words, V(shown) for all of one, V(audited) to verify all.
      - V(proposed) for the plans that wait for an approval.
    type: str
    choices: [listed, shown, proposed, audited]
    required: true
  run_id:
    description: The run. Required with O(state=shown).
    type: str
author:
  - MarketSage (@marketsage)
extends_documentation_fragment:
  - marketsage.rollback.controller
  - marketsage.rollback.controller.record
  - marketsage.rollback.controller.reads
"""

EXAMPLES = r"""
- name: Verify the record of all runs
  marketsage.rollback.rollback_record:
    state: audited
    control_dir: /var/lib/marketsage.rollback/production
"""

RETURN = r"""
runs:
  description: The runs, newest first; with O(state=audited) each with its C(problems).
  type: list
  elements: dict
  returned: when O(state=listed) or O(state=audited)
months:
  description:
    - How it went over the months, newest first. C(runs) that restored service, and the C(median) of their
      C(restored_after), seconds from the opening of a run until traffic was back.
  type: list
  elements: dict
  returned: when O(state=listed)
proposals:
  description: The plans that wait for an approval, each with its C(hash), its C(plan), and C(summary) in lines.
  type: list
  elements: dict
  returned: when O(state=proposed)
approvals:
  description: Where approvals are looked for, named by the plan's hash.
  type: str
  returned: when O(state=proposed)
shown:
  description:
    - The run with its plan, outcome, the seconds of its steps and where its record is.
    - Also its C(journal) of all hosts, C(watch) (null where it was not watched), C(criteria) and C(messages).
  type: dict
  returned: when O(state=shown)
"""
