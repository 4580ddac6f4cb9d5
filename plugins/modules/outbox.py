# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: outbox
short_description: Show, deliver or drop messages that were not delivered
version_added: 0.1.0
description:
  - Messages that a channel did not take wait in the control host's outbox.
  - One that a channel may have taken without saying so is unknown. It is only sent when it is named, because nothing
    but a human can tell whether it arrived.
  - Runs on the controller.
options:
  state:
    description:
      - V(listed) only reads what waits.
      - V(sent) sends what waits and is known not to have arrived, or the one message named by O(id), now.
      - V(dropped) gives up the message named by O(id).
    type: str
    choices: [listed, sent, dropped]
    required: true
  id:
    description: A message. Required with O(state=dropped).
    type: str
  channels:
    description: The channels of the environment, as for M(marketsage.rollback.announce).
    type: dict
    default: {}
attributes:
  check_mode:
    description: In check mode nothing is sent or dropped.
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
- name: Deliver what was not delivered
  marketsage.rollback.outbox:
    state: sent
    control_dir: /var/lib/marketsage.rollback/production
    channels: "{{ rollback_channels }}"
"""

RETURN = r"""
waiting:
  description: What waits afterwards, oldest first.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: The message.
      type: str
    run:
      description: The run that it tells of.
      type: str
    channel:
      description: The channel that is to take it.
      type: str
    event:
      description: What it tells.
      type: str
    state:
      description: V(queued), V(sending), V(refused) or V(unknown).
      type: str
    attempts:
      description: How often it was tried.
      type: int
    error:
      description: Why it was not delivered.
      type: str
    created:
      description: Since when it waits, ISO 8601.
      type: str
settled:
  description: The ids of the messages that no longer wait because of this task.
  type: list
  elements: str
  returned: always
"""
