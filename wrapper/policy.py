"""The data that the command reads beside the playbooks: decision matrix, budgets and procedures."""
from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput

COLLECTION = Path(__file__).parents[1]
PLAYBOOKS = COLLECTION / "playbooks"
SANDBOX = COLLECTION / "inventories" / "sandbox"


_inventory: ContextVar[Path] = ContextVar("inventory", default=SANDBOX)


def use(inventory: Path) -> Path:
    """Have an inventory's own word count from now on; BadInput where it is not in the form that it must have."""
    _inventory.set(inventory)
    for own in filter(None, (_file(_directory(), name) for name in ("policy", "services"))):
        from ansible_collections.marketsage.rollback.plugins.plugin_utils import forms  # noqa: PLC0415  loads Ansible

        forms.check_known(own)
    return inventory


def data(name: str) -> dict[str, Any]:
    """What one file of group_vars/all says: the playbooks', with what the inventory's file of that name has instead."""
    return {**_file(PLAYBOOKS, name), **_file(_directory(), name)}


def _directory() -> Path:
    inventory = _inventory.get()
    return inventory if inventory.is_dir() else inventory.parent


@cache
def _file(directory: Path, name: str) -> dict[str, Any]:
    path = directory / "group_vars" / "all" / f"{name}.yml"
    try:
        loaded = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: not names with their values")
    return loaded


def procedures() -> dict[str, dict[str, Any]]:
    """What can be rolled back: name -> {title, playbook, words where it has some}."""
    procedures: dict[str, dict[str, Any]] = data("services")["rollback_procedures"]
    return procedures


def words(procedure: str) -> list[str]:
    """What an operator may say about a procedure beside severity, reason and target: names of its variables."""
    words: list[str] = data("services")["rollback_procedures"][procedure].get("words", [])
    return words


def severity_of(procedure: str) -> str:
    """The severity of a procedure that is no incident's; empty where the operator says it."""
    severity: str = procedures()[procedure].get("severity", "")
    return severity


def components() -> dict[str, dict[str, Any]]:
    """What can be rolled back alone: name -> its row."""
    components: dict[str, dict[str, Any]] = data("services")["rollback_components"]
    return components


def severity(name: str) -> dict[str, Any]:
    """A row of the decision matrix: name, response_time (seconds), rollback, action."""
    row: dict[str, Any] = data("policy")["rollback_policy"]["severities"][name]
    return row


def budgets() -> dict[str, int]:
    """Seconds that each step may take, by the name of its play."""
    budgets: dict[str, int] = data("policy")["rollback_policy"]["budgets"]
    return budgets


def on_failure() -> dict[str, str]:
    """What users meet when a step fails, by the name of its play."""
    told: dict[str, str] = data("policy")["rollback_policy"]["on_failure"]
    return told


def watch_seconds() -> int:
    """Seconds that a watch lasts."""
    seconds: int = data("policy")["rollback_policy"]["watch"]["seconds"]
    return seconds


def approval_valid_for() -> int:
    """Seconds that an approval may hold."""
    seconds: int = data("policy")["rollback_policy"]["approval"]["valid_for"]
    return seconds


def playbook(procedure: str) -> Path:
    return PLAYBOOKS / procedures()[procedure]["playbook"]


def steps(path: Path, only_plan: bool = False) -> dict[str, int]:
    """The named steps of a playbook, imported playbooks included, with the budget of each in seconds."""
    return {name: budgets()[name] for name in _plays(path, "prepare.yml" if only_plan else None) if name in budgets()}


def _plays(path: Path, last: str | None = None) -> list[str]:
    """The names of a playbook's plays, imported ones in their place, up to those of the playbook `last`."""
    names: list[str] = []
    for play in yaml.safe_load(path.read_text()):
        imported = play.get("ansible.builtin.import_playbook")
        names += _plays(path.parent / imported) if imported else [play["name"]]
        if last and imported == last:
            break
    return names
