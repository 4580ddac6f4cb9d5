# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """What is common to modules that run on the controller, to those that only read, and to those that keep records."""

    DOCUMENTATION = r"""
attributes:
  action:
    description: Runs on the controller.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

    READS = r"""
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

    RECORD = r"""
options:
  control_dir:
    description: The control host's record of the environment.
    type: path
    required: true
"""
