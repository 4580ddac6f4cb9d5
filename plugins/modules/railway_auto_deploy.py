#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: railway_auto_deploy
short_description: Switch a Railway service's automatic deploys on or off
description:
  - A rollback does not move the branch, so that the next push would ship the bad release again.
  - Switched means that Railway, asked again afterwards, says so.
version_added: 0.1.0
author: MarketSage (@marketsage)
options:
  enabled:
    description: Whether a push is shipped by itself.
    type: bool
    required: true
  timeout:
    description: Seconds that everything may take.
    type: int
    default: 300
  poll_interval:
    description: Seconds between two looks; at most O(timeout).
    type: float
    default: 5
attributes:
  check_mode:
    description: Reads and switches nothing.
    support: full
  diff_mode:
    description: Shows whether it is on, before and after.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.railway
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Ship nothing while production is being looked at
  marketsage.rollback.railway_auto_deploy:
    enabled: false
    token_file: /etc/rollback/railway_token
    token_type: project
    service: marketsage-frontend
    run: "{{ run }}"
"""

RETURN = r"""
enabled:
  description: Whether a push is shipped by itself now.
  type: bool
  returned: success
exit_code:
  description: The exit code that a run ends with because of this failure.
  type: int
  returned: failure
advice:
  description: What to do next.
  type: str
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.railway import MaybeApplied, Service
from ansible_collections.marketsage.rollback.plugins.module_utils.railway_delivery import (
    PLACE_ARGUMENTS,
    check_place,
    service_of,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run


def read(service: Service) -> bool:
    enabled = service.auto_deploy()
    if enabled is None:
        raise Unknown(f"Railway does not tell whether {service.place.service} deploys by itself. Does it?")
    return enabled


def switch(service: Service, wanted: bool, run: Run) -> None:
    """Switch it and read it back; where the answer was lost, the reading alone tells."""
    with run.change("auto_deploy", {"service": service.place.service, "enabled": wanted}) as change:
        try:
            service.switch_auto_deploy(wanted)
        except MaybeApplied as error:
            change.outcome = {"lost": str(error)}
        if read(service) != wanted:
            raise Held(f"{service.place.service}: automatic deploys are still {'off' if wanted else 'on'}")
        change.outcome = {**change.outcome, "enabled": wanted}


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    check_place(params)
    service = service_of(params, Deadline(params["timeout"]))
    before, wanted = read(service), params["enabled"]
    if before != wanted and not module.check_mode:
        switch(service, wanted, Run.of(params["run"]))
    return {
        "changed": before != wanted,
        "enabled": before if module.check_mode else wanted,
        "diff": {"before": {"enabled": before}, "after": {"enabled": wanted}},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **PLACE_ARGUMENTS,
            "enabled": {"type": "bool", "required": True},
            "run": RUN_ARGUMENT,
        },
        supports_check_mode=True,
    )
    errors.finish(module, work)


if __name__ == "__main__":
    main()
