# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """The option of modules that change something on a host, and where most of them run."""

    DOCUMENTATION = r"""
options:
  run:
    description:
      - The open run that a change belongs to, as M(marketsage.rollback.rollback_run) returned it.
      - Not needed where nothing is to be changed.
    type: dict
    suboptions:
      id:
        description: The run's id.
        type: str
        required: true
      fence:
        description: The run's fencing number.
        type: int
        required: true
      state_dir:
        description: Where this host keeps its lock, the highest fencing number it has seen, and the journal.
        type: path
        required: true
attributes:
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""
