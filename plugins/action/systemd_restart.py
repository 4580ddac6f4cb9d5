# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from ansible_collections.marketsage.rollback.plugins.modules import systemd_restart
from ansible_collections.marketsage.rollback.plugins.plugin_utils.in_process import InProcessAction


class ActionModule(InProcessAction):
    MODULE = systemd_restart
