"""Drills: a sandbox is broken on purpose, rolled back and scored."""
from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.commands import running
from ansible_collections.marketsage.rollback.wrapper.commands.options import JSON

# ruff: noqa: PLC0415


@click.command()
@click.argument("kind", metavar="KIND")
@click.option("--keep", is_flag=True, help="Leave the drill's sandbox running.")
@JSON
def drill(kind: str, keep: bool, as_json: bool) -> None:
    """Break a sandbox of its own under load, roll it back, and say how it went.

    KIND is backend, frontend, full-system or database.
    """
    from ansible_collections.marketsage.rollback.sandbox import drill as drills
    from ansible_collections.marketsage.rollback.sandbox import layout, stack
    from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError
    from ansible_collections.marketsage.rollback.wrapper import operation, scorecard

    if kind not in drills.DRILLS:
        raise click.BadParameter(f"kind: {kind!r} is not one of {', '.join(drills.DRILLS)}")
    chosen = drills.DRILLS[kind]
    place = layout.Layout(drills.directory_beside(layout.default_directory()), drills.PORT_BASE)
    os.environ["ROLLBACK_SANDBOX"] = str(place.directory)
    runs: list[Any] = []

    def carry_out(procedure: str, reason: str, words: dict[str, str]) -> tuple[int, str]:
        request = {**running.request(procedure, severity=chosen.severity, reason=reason), **words}
        scene = operation.carry_out(procedure, policy.SANDBOX, request, False, as_json)
        runs.append(scene)
        return int(scene.exit_code or 0), scene.run or ""

    try:
        result = drills.hold(chosen, place, drills.Hands(carry_out, _quiet if as_json else click.echo))
        records = [drills.keep_record(place, scene.run) for scene in runs if scene.run]
        score = scorecard.score(result, runs, records)
        print(json.dumps(score)) if as_json else scorecard.show(score)
    except SandboxError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if not keep and place.directory.exists():
            stack.down(place)
    sys.exit(result["exit_code"])


def _quiet(_line: str) -> None:
    pass
