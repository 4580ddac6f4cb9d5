# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which sessions a plan ends, which it cannot end, and how both are told."""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused

# The words of a scope; the pattern alone is never empty.
SCOPE_ARGUMENT = {
    "type": "dict",
    "options": {
        "pattern": {"type": "str", "required": True},
        "user": {"type": "str", "required": True},
        "created_before": {"type": "str", "required": True},
        "unknown": {"type": "str", "required": True, "choices": ["keep", "end"]},
        "flush_other_keys": {"type": "str", "required": True, "no_log": False},
    },
}


def part(
    scope: dict[str, Any] | None, reports: dict[str, dict[str, Any]], signed: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a plan says about sessions, from what each store of them reported; nothing where there is no scope."""
    if scope is None:
        return {}
    if not reports:
        raise Refused("sessions: its group has no host in the inventory, so there is no store of them")
    for host, report in reports.items():
        if "sessions" not in report:
            raise Refused(f"sessions: {host} could not be read ({report.get('msg', 'unreachable')})")
    found = [host for host, report in reports.items() if report["changed"]]
    return {"session_scope": scope, "session_stores": found, "signed_sessions": signed}


def summary(plan: dict[str, Any]) -> list[str]:
    """The plan's lines about sessions; how many they are differs from one look to the next."""
    scope = plan.get("session_scope")
    if scope is None:
        return []
    if not plan["session_stores"]:
        return [f"sessions: none {_in_words(scope)}"]
    where = ", ".join(plan["session_stores"])
    lines = [f"sessions: those {_in_words(scope)} are ended on {where}"]
    if scope["flush_other_keys"]:
        lines.append(f"FLUSHDB empties {where}: {scope['flush_other_keys']} keys that are no sessions die too")
    return lines + [
        f"not ended: {kind['sessions']}; they are signed and kept nowhere, and only a new {kind['secret']} ends them"
        for kind in plan["signed_sessions"]
    ]


def _in_words(scope: dict[str, Any]) -> str:
    words = [scope["pattern"]]
    words += [f"of {scope['user']}"] if scope["user"] else []
    words += [f"created before {scope['created_before']}"] if scope["created_before"] else []
    return " ".join(words)


def counted(reports: dict[str, dict[str, Any]]) -> list[str]:
    """How many sessions and other keys each store has at the moment, by kind of key."""
    return [
        f"now on {host}: {_number(report['sessions'])} sessions in scope, "
        f"{report['unknown']['count']} that do not tell, {_number(report['others']['before'])} other keys"
        for host, report in reports.items()
    ]


def _number(keys: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in keys["kinds"].items())
    return f"{keys['count']} ({kinds})" if kinds else str(keys["count"])


def left_to_do(plan: dict[str, Any]) -> list[str]:
    """What the run does not do: the checklist of each secret that a human has to renew."""
    return [
        f"[ ] {kind['secret']} ({kind['sessions']}): {step}"
        for kind in plan.get("signed_sessions", [])
        for step in kind["rotation"]
    ]
