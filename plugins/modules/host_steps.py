# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: host_steps
short_description: Take several steps on a host in one go
version_added: 0.1.0
description:
  - Carries out modules of this collection one after another on a host, over one connection and in one process, for
    what each costs beside its own work is what a fleet waits for behind the maintenance page.
  - The parameters of all are checked before the first is carried out. The first that fails ends it, and its failure is
    that of the task.
options:
  steps:
    description:
      - The steps, each a dictionary whose only key is the name of a module and whose value are its parameters. Any
        module will do that works on a host, such as M(marketsage.rollback.release) or
        M(marketsage.rollback.pm2_restart).
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: Each step says what it would change.
    support: full
  diff_mode:
    description: Shows what each step shows.
    support: full
  platform:
    description: Where its steps run.
    platforms: posix
    support: full
author:
  - MarketSage (@marketsage)
"""

EXAMPLES = r"""
- name: Switch to a release, and restart the application on it
  marketsage.rollback.host_steps:
    steps:
      - release: {state: live, root: /srv/backend, release: 3f0c8f0f3a1d, run: "{{ rollback_run }}"}
      - pm2_restart:
          name: marketsage-backend
          pm2: /usr/bin/pm2
          pm2_home: /srv/backend/.pm2
          current: /srv/backend/current
          run: "{{ rollback_run }}"
"""

RETURN = r"""
steps:
  description: What each step said, in their order, up to the first that failed.
  type: list
  elements: dict
  returned: when steps were taken
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""
