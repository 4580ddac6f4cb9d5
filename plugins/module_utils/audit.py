# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the record of all runs is what was written: its hash chains, and plan, approval and outcome by each other."""
from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal, digest


def heads(directory: str) -> dict[str, str]:
    """The newest hash of each journal in a directory, by its host's name."""
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return {name[: -len(".jsonl")]: Journal(os.path.join(directory, name)).head() for name in names}


def verify(control: Control) -> list[dict[str, Any]]:
    """Each run with what is wrong with its record; an empty list of problems where nothing is."""
    return [{"run": run, "problems": problems_of(control, run)} for run in control.runs()]


def problems_of(control: Control, run: str) -> list[str]:
    """What speaks against the record of one run."""
    try:
        entries = control.journal(run).entries()
        collected = heads(control.path("runs", run, "journals"))
        return _of_opening(control, run, entries) + _of_closing(control, run, entries, collected)
    except (RollbackError, json.JSONDecodeError, OSError, KeyError, TypeError) as error:
        return [f"cannot be read: {error}"]


def _of_opening(control: Control, run: str, entries: list[dict[str, Any]]) -> list[str]:
    opened = [entry["data"] for entry in entries if entry["step"] == "open"]
    if not opened:
        return ["the journal does not say who opened it"]
    problems = []
    plan_hash = digest(control.plan(run))
    if any(record["plan"] != plan_hash for record in opened):
        problems.append("plan.json is not the plan that was pinned")
    approval = read_json(control.path("runs", run, "approval.json"), None)
    approver = opened[0]["approved_by"]
    if approver and (approval or {}).get("approver") != approver:
        problems.append(f"the approval of {approver} is missing or is another one")
    if approval and approval["plan"] != plan_hash:
        problems.append("approval.json is for another plan")
    return problems


def _of_closing(
    control: Control, run: str, entries: list[dict[str, Any]], collected: dict[str, str]
) -> list[str]:
    outcome = control.outcome(run)
    closed = [entry["data"] for entry in entries if entry["step"] == "close"]
    if outcome is None:
        return ["outcome.json is missing, though the journal says how it ended"] if closed else []
    if closed[-1:] != [outcome]:
        return ["outcome.json is not what the journal says of the end"]
    written = outcome.get("journals", {})
    altered = [host for host in written if collected.get(host) != written[host]]
    return [f"{host}: the journal is not the one that was collected" for host in altered]
