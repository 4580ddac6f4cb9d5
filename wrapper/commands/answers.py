"""What a playbook answers to a command's question, and how the command says it."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

_VERSION = 1


def ask(playbook: str, inventory: Path, /, *, check: bool, **variables: Any) -> tuple[dict[str, Any], int]:
    """What the tasks of a playbook returned, and its exit code; a failure was said on stderr."""
    from ansible_collections.marketsage.rollback.wrapper import operation  # noqa: PLC0415  so that --help stays quick

    return operation.ask(playbook, inventory, variables, check)


def answer(playbook: str, inventory: Path, /, *, check: bool, **variables: Any) -> dict[str, Any]:
    """The same of a playbook without whose answer the command cannot go on: it ends here where that failed."""
    found, code = ask(playbook, inventory, check=check, **variables)
    if code:
        sys.exit(code)
    return found


def open_run(run_id: str | None, inventory: Path) -> str:
    """The run that is named, else the one that is open."""
    return run_id or _newest([run for run in _runs(inventory) if run["state"] == "open"], "no run is open")


def newest_run(run_id: str | None, inventory: Path) -> str:
    """The run that is named, else the newest."""
    return run_id or _newest(_runs(inventory), "there was no run yet")


def _runs(inventory: Path) -> list[dict[str, Any]]:
    """Every run, newest first."""
    runs: list[dict[str, Any]] = answer("record.yml", inventory, check=True)["runs"]
    return runs


def _newest(runs: list[dict[str, Any]], where_none: str) -> str:
    if not runs:
        raise click.UsageError(f"run_id: {where_none}")
    return str(runs[0]["run"])


def print_json(**told: Any) -> None:
    click.echo(json.dumps({"version": _VERSION, **told}))


def say(as_json: bool, text: str, /, **told: Any) -> None:
    """One line for a human, or the same as JSON."""
    print_json(**told) if as_json else click.echo(text)
