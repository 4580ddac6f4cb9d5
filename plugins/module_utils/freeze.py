# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why deploys are held back: one file on the control host, {name: {by, reason, since, until}}.

A deploy job asks before it ships anything. An entry without `until` is that of an open run.
"""
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import locked, read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import later, now

_LOCK_SECONDS = 10


def load(path: str) -> dict[str, Any]:
    """Every entry, the expired ones too. Unknown where the file is damaged: a deploy may have to be held back."""
    try:
        entries = read_json(path, {})
        well_formed = all({"by", "reason", "since", "until"} <= set(entry) for entry in entries.values())
    except (ValueError, AttributeError, TypeError):
        well_formed = False
    if not well_formed:
        raise Unknown(f"{path} is damaged. Are deploys held back?", "Restore it, or run unfreeze.yml.")
    return dict(entries)


def active(path: str) -> list[dict[str, Any]]:
    """The entries that hold deploys back now, the one that does so longest first."""
    held = [entry for entry in load(path).values() if entry["until"] is None or entry["until"] > now()]
    return sorted(held, key=lambda entry: (entry["until"] is None, entry["until"]), reverse=True)


def put(path: str, name: str, *, by: str, reason: str, seconds: int | None) -> dict[str, Any]:
    """Hold deploys back for `seconds`, or until the run ends that this is for."""
    until = None if seconds is None else later(seconds)
    entry = {"by": by, "reason": reason, "since": now(), "until": until}
    with locked(f"{path}.lock", _LOCK_SECONDS):
        _write(path, {**load(path), name: entry})
    return entry


def lift(path: str, names: Iterable[str]) -> None:
    """Forget entries."""
    with locked(f"{path}.lock", _LOCK_SECONDS):
        gone = set(names)
        _write(path, {name: entry for name, entry in load(path).items() if name not in gone})


def _write(path: str, entries: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(entries, indent=2, sort_keys=True) + "\n")
