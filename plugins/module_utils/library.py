# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Third-party libraries, imported when first needed: most runs need none, and each costs start-up time."""
from __future__ import annotations

import importlib
from typing import Any

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError


class Missing(RollbackError):
    """A library is not installed."""


def library(name: str, needed_for: str) -> Any:
    """The module `name`; Missing, which says how to get it where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(missing_required_lib(name, reason=needed_for)) from None
