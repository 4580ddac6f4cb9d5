# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say how bad it is, why, and what to type; see the module's documentation."""
from __future__ import annotations

import time
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import assessment, validate
from ansible_collections.marketsage.rollback.plugins.plugin_utils import control_action, forms


def assess(arguments: dict[str, Any]) -> dict[str, Any]:
    """The severity, the evidence, the likely cause, and the command."""
    triggers, url, now = arguments["triggers"], arguments["prometheus_url"], time.time()
    measured = [
        assessment.measure(validate.url(url, "prometheus_url"), trigger, now, triggers["window"], triggers["step"])
        for trigger in (triggers["measured"] if url else [])
    ]
    failing = assessment.health(arguments["results"], triggers["health"])
    exceeded = [one for one in measured if one["exceeded"]]
    severity = assessment.worst([one["severity"] for one in [*exceeded, *failing]])
    services, alone = assessment.accused(failing, list(arguments["hosts"]), arguments["checklists"])
    everywhere = assessment.deploys(arguments["reports"], arguments["hosts"])
    deployed = [deploy for deploy in everywhere if deploy["service"] in services]
    began = min((one["since"] for one in exceeded if one["since"]), default=None)
    cause = assessment.likely_cause(began, deployed if alone else everywhere, triggers["deploy_within"])
    if not alone:
        # What fails through one service may be another's fault: whose deploy was the last before it began.
        cause = cause[:1]
    meant = [deploy["service"] for deploy in cause or deployed[:1]] or services
    return {
        "changed": False,
        "asked_prometheus": bool(url),
        "measured": measured,
        "failing": failing,
        "severity": severity,
        "since": began,
        "deploys": deployed,
        "cause": cause,
        "action": arguments["policy"]["severities"][severity]["action"] if severity else "none",
        **assessment.advice(meant, severity, [*exceeded, *failing]),
    }


class ActionModule(control_action.ControlAction):
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "prometheus_url": {"type": "str", "default": ""},
        "triggers": {"type": "dict", "required": True},
        "policy": {"type": "dict", "required": True},
        "hosts": {"type": "dict", "required": True},
        "reports": {"type": "dict", "required": True},
        "checklists": {"type": "dict", "required": True},
        "results": {"type": "list", "elements": "dict", "default": []},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in ("policy", "triggers"):
            forms.check(f"rollback_{name}", arguments[name])
        return assess(arguments)
