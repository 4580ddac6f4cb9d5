"""Commands on what people are told: the outbox, and acknowledging a run."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.wrapper.commands import answers, options


@click.group()
def outbox() -> None:
    """Messages about runs that their channels have not taken yet."""


@outbox.command("list")
@options.INVENTORY
@options.JSON
def list_(inventory: Path, as_json: bool) -> None:
    """Show what waits, and why."""
    _show(answers.answer("outbox.yml", inventory, check=False), as_json)


@outbox.command()
@click.argument("message", required=False)
@options.INVENTORY
@options.JSON
def send(message: str | None, inventory: Path, as_json: bool) -> None:
    """Send what waits now.

    A message that may have arrived already is only sent when it is named by its id as MESSAGE.
    """
    variables = {"outbox_state": "sent", **({"outbox_id": message} if message else {})}
    _show(answers.answer("outbox.yml", inventory, check=False, **variables), as_json)


@outbox.command()
@click.argument("message")
@options.INVENTORY
@options.JSON
def drop(message: str, inventory: Path, as_json: bool) -> None:
    """Give MESSAGE up: it did arrive, or nobody needs it any more."""
    variables = {"outbox_state": "dropped", "outbox_id": message}
    _show(answers.answer("outbox.yml", inventory, check=False, **variables), as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        answers.print_json(waiting=found["waiting"], settled=found["settled"])
        return
    for identifier in found["settled"]:
        print(f"settled: {identifier}")
    if not found["waiting"]:
        print("Nothing waits.")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("message", "state", "tried", "why"):
        table.add_column(column, overflow="fold")
    for one in found["waiting"]:
        table.add_row(one["id"], one["state"], str(one["attempts"]), one["error"])
    Console().print(table)
    if any(one["state"] == "unknown" for one in found["waiting"]):
        print("Look whether what is unknown arrived: then rollback outbox drop MESSAGE, else outbox send MESSAGE.")


@click.command()
@options.OPTIONAL_RUN
@options.INVENTORY
def ack(run_id: str | None, inventory: Path) -> None:
    """Say that you look after RUN, so that nobody else is woken. Without RUN it is the open one."""
    run_id = answers.open_run(run_id, inventory)
    options.procedure_of(run_id)
    found = answers.answer("acknowledge.yml", inventory, check=False, run_id=run_id)
    click.echo(f"{run_id}: {'you look after it' if found['changed'] else 'it has ended, or somebody has it already'}")
