# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which releases are known to be good or bad: one file on the control host, {service: {commit: mark}}."""
from __future__ import annotations

import json
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import now

MARKS = ("good", "bad")
_LOCK_SECONDS = 10


def load(path: str) -> dict[str, Any]:
    """All marks. Unknown where the file is damaged: without it a release known to be bad could be chosen."""
    try:
        marks = read_json(path, {})
        well_formed = all(one["mark"] in MARKS for commits in marks.values() for one in commits.values())
    except (ValueError, AttributeError, KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise Unknown(f"{path} is damaged. Which releases are known to be bad?", "Restore the file from a backup.")
    return dict(marks)


def mark(path: str, service: str, commit: str, mark: str, *, by: str, reason: str) -> bool:
    """Mark a release and return whether that changed anything; the same mark again keeps who set it first and why."""
    with locked(f"{path}.lock", _LOCK_SECONDS):
        marks = load(path)
        commits = marks.setdefault(service, {})
        if commits.get(commit, {}).get("mark") == mark:
            return False
        commits[commit] = {"mark": mark, "time": now(), "by": by, "reason": reason}
        write_atomically(path, json.dumps(marks, indent=2, sort_keys=True) + "\n")
    return True
