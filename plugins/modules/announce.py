# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: announce
short_description: Tell those who must know of a rollback
version_added: 0.1.0
description:
  - Queues a message on each channel that the policy names for the severity and that the environment has, and leaves the
    delivery to a process of its own. The run waits for no channel and never fails because of one.
  - Once a run is announced, the callback P(marketsage.rollback.outcome#callback) tells each box of the communication
    template that is ticked, and how the run ended.
  - A message is on disk before it is sent. What its API may have taken without saying so is not sent twice, unless the
    API itself makes one of the two; it waits in the outbox as unknown until an operator decides, see
    M(marketsage.rollback.outbox).
  - When a run is held, unknown or interrupted and nobody acknowledges it in the policy's time, the next of those on
    call is told.
  - Runs on the controller.
options:
  state:
    description:
      - V(begun) tells that the run has begun, or goes on.
      - V(proposed) tells where people chat that a plan waits for whoever approves it and carries it out.
      - V(acknowledged) writes down that the operator looks after the run, which ends the escalation.
    type: str
    choices: [begun, proposed, acknowledged]
    required: true
  run:
    description: The id of the run. Required but with O(state=proposed).
    type: str
  plan:
    description: What M(marketsage.rollback.rollback_run) proposes. Required with O(state=proposed).
    type: dict
  channels:
    description:
      - The channels of the environment by name, each with its C(type) and what that type needs.
      - V(slack) is a bot that keeps one message of the run up to date (C(api_url), C(channel), C(token_file)).
      - V(slack_webhook) is an incoming webhook (C(url_file), as its address is a secret).
      - V(twilio) sends an SMS to who is on call (C(api_url), C(account_sid), C(token_file), C(from)).
      - V(pagerduty) is Events API v2 (C(api_url), C(routing_key_file)).
      - V(webhook) posts JSON (C(url), and C(token_file) where it wants a bearer token).
    type: dict
    default: {}
  oncall:
    description: Who is on call as C(primary), C(secondary) and C(escalation), each with C(name), C(phone) and C(slack).
    type: dict
    default: {}
  policy:
    description: The policy. Required but with O(state=acknowledged).
    type: dict
    default: {}
  templates:
    description:
      - The directory of C(announcement.txt.j2), C(summary.txt.j2) and C(proposal.txt.j2). Required but with
        O(state=acknowledged).
    type: path
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
- name: Tell those who must know
  marketsage.rollback.announce:
    state: begun
    control_dir: /var/lib/marketsage.rollback/production
    run: "{{ run_opened.run.id }}"
    channels:
      alerts: {type: slack, api_url: https://slack.com/api, channel: C0INCIDENTS, token_file: /etc/rollback/slack_token}
    oncall:
      primary: {name: Ann Example, phone: "+15550100", slack: "@ann"}
    policy: "{{ rollback_policy }}"
    templates: "{{ playbook_dir }}/templates"
"""

RETURN = r"""
announced:
  description: The C(control_dir) and C(run) that the callback tells the rest of; null where nobody can be told.
  type: dict
  returned: when O(state=begun)
"""
