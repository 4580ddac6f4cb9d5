# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """The attributes of modules that run on the controller, and those of the ones among them that only read."""

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
