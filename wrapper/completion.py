"""What the shell completes: names from the data, runs and releases as they were last seen. Nothing is asked."""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.wrapper import policy


def _file(inventory: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(os.fspath(inventory.resolve()).encode()).hexdigest()[:16]
    return Path(cache) / "marketsage.rollback" / "seen" / f"{name}.json"


def remember(inventory: Path, **seen: list[str]) -> None:
    """Keep the names that were just seen, for the next completion; that they cannot be kept is no failure."""
    try:
        file = _file(inventory)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**_seen(inventory), **seen}))
    except OSError:
        return


def _seen(inventory: Path) -> dict[str, list[str]]:
    try:
        seen: dict[str, list[str]] = json.loads(_file(inventory).read_text())
    except (OSError, ValueError):
        return {}
    return seen


def _completed(context: click.Context, kind: str, begun: str) -> list[str]:
    inventory = Path(context.params.get("inventory") or os.environ.get("ROLLBACK_INVENTORY") or policy.SANDBOX)
    return [name for name in _seen(inventory).get(kind, []) if name.startswith(begun)]


def services(_context: click.Context, _parameter: Any, begun: str) -> list[str]:
    return [name for name in policy.procedures() if name.startswith(begun)]


def components(_context: click.Context, _parameter: Any, begun: str) -> list[str]:
    return [name for name in policy.components() if name.startswith(begun)]


def runs(context: click.Context, _parameter: Any, begun: str) -> list[str]:
    return _completed(context, "runs", begun)


def releases(context: click.Context, _parameter: Any, begun: str) -> list[str]:
    return _completed(context, "releases", begun)
